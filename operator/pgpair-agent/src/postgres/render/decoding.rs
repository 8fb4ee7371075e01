//! Logical decoding: the `wal_level` that a person has set, and whether the standby keeps the logical slots of its primary.

use pgpair_wire::config::PairConfig;

use super::{Floors, RenderError};

/// The one parameter of the operator of which a user may choose the value.
pub const WAL_LEVEL: &str = "wal_level";
/// The first major version of PostgreSQL in which a standby copies the logical slots of its primary.
const COPIES_SINCE: u32 = 17;
/// The first in which a primary raises its level by itself, when its first logical slot is made.
const RAISES_ITSELF_SINCE: u32 = 19;

/// What a primary writes into its WAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WalLevel {
    /// What a standby needs.
    #[default]
    Replica,
    /// The same, and what logical decoding needs.
    Logical,
}

impl WalLevel {
    /// PostgreSQL's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WalLevel::Replica => "replica",
            WalLevel::Logical => "logical",
        }
    }

    pub(super) fn parse(value: &str) -> Result<WalLevel, RenderError> {
        [WalLevel::Replica, WalLevel::Logical]
            .into_iter()
            .find(|level| level.as_str() == value)
            .ok_or_else(|| RenderError::WalLevel(value.to_owned()))
    }

    /// The level of a configuration; of one that is refused, the lower one.
    #[must_use]
    pub fn configured(config: &PairConfig) -> WalLevel {
        let mut all = config.parameters.iter();
        let value = all.find(|(name, _)| name.eq_ignore_ascii_case(WAL_LEVEL)).map(|(_, value)| value);
        value.and_then(|value| WalLevel::parse(value).ok()).unwrap_or_default()
    }

    /// The level that postgres is started with: never below what the directory demands.
    #[must_use]
    pub fn at_start(config: &PairConfig, floors: Floors) -> WalLevel {
        if floors.has_logical_slots { WalLevel::Logical } else { WalLevel::configured(config) }
    }

    /// Whether a postgres that was started with this level can have logical slots. Not known counts as yes.
    #[must_use]
    pub fn may_have_slots(self, major: Option<u32>) -> bool {
        self == WalLevel::Logical || major.is_none_or(|major| major >= RAISES_ITSELF_SINCE)
    }
}

/// Whether the standby keeps copies of the logical slots of its primary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlotCopies {
    /// It does not: there are no logical slots, or PostgreSQL is older than 17 and does not know the parameters.
    #[default]
    None,
    /// It does, and consumers of such slots get nothing that a synchronous standby does not have.
    Kept,
}

impl SlotCopies {
    /// Of a directory of this major version. Not known counts as old: a parameter that postgres does not know keeps it from starting.
    #[must_use]
    pub fn of(level: WalLevel, major: Option<u32>) -> SlotCopies {
        match (level, major) {
            (WalLevel::Logical, Some(COPIES_SINCE..)) => SlotCopies::Kept,
            _ => SlotCopies::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{conf, settings};
    use super::super::{Upstream, main_conf, sync_conf, upstream_conf};
    use super::*;
    use crate::postgres::trust::ServerTrust;
    use pgpair_core::ids::InstanceId;

    #[test]
    fn a_user_may_choose_replica_or_logical_and_nothing_else() {
        let of = |value: &str| conf(&[("wal_level", value)], Floors::default());
        assert!(conf(&[], Floors::default()).unwrap().contains("wal_level = 'replica'\n"));
        assert!(of("replica").unwrap().contains("wal_level = 'replica'\n"));
        assert!(of("logical").unwrap().contains("wal_level = 'logical'\n"));
        for value in ["minimal", "Logical", "", "1"] {
            assert_eq!(of(value), Err(RenderError::WalLevel(value.to_owned())));
        }
        let upper = conf(&[("WAL_LEVEL", "logical")], Floors::default()).unwrap();
        assert_eq!(upper.matches("wal_level").count(), 1);
        assert!(upper.contains("wal_level = 'logical'\n"));
    }

    #[test]
    fn a_directory_with_logical_slots_is_never_started_with_a_lower_level() {
        let floors = Floors { has_logical_slots: true, ..Floors::default() };
        let config = PairConfig::default();
        let text = main_conf(&settings(), &config, floors, 64).unwrap();
        assert!(text.contains("wal_level = 'logical'\n"));
        assert_eq!(WalLevel::at_start(&config, floors), WalLevel::Logical);
        assert_eq!(super::super::raised(&settings(), &config, floors), ["wal_level"]);
    }

    #[test]
    fn slots_are_copied_only_at_level_logical_and_only_by_a_server_that_can() {
        let of = |level, major| SlotCopies::of(level, major);
        assert_eq!(of(WalLevel::Logical, Some(17)), SlotCopies::Kept);
        assert_eq!(of(WalLevel::Logical, Some(18)), SlotCopies::Kept);
        for (level, major) in
            [(WalLevel::Logical, Some(16)), (WalLevel::Logical, None), (WalLevel::Replica, Some(17))]
        {
            assert_eq!(of(level, major), SlotCopies::None);
        }
    }

    #[test]
    fn what_only_newer_servers_know_is_written_only_for_them() {
        let upstream = Upstream { host: "db-a".into(), address: None, port: 5432 };
        let of = |copies| {
            upstream_conf(&settings(), &upstream, &ServerTrust::default(), copies).unwrap()
                + &sync_conf(Some(InstanceId::A), copies).unwrap()
        };
        let plain = of(SlotCopies::None);
        assert!(!plain.contains("dbname") && !plain.contains("slots =") && !plain.contains("feedback"));
        let kept = of(SlotCopies::Kept);
        assert!(kept.contains("dbname=''postgres''"), "{kept}");
        assert!(kept.contains("sync_replication_slots = 'on'\n"));
        assert!(kept.contains("hot_standby_feedback = 'on'\n"));
        assert!(kept.contains("synchronized_standby_slots = 'pgpair_a'\n"));
        let alone = sync_conf(None, SlotCopies::Kept).unwrap();
        assert!(
            alone.contains("synchronized_standby_slots = ''\n"),
            "nobody may wait for a standby that is away"
        );
    }
}
