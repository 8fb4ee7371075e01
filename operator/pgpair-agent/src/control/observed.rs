//! What the worker saw: from the worker to the driver, and into the report; and what is left of it when it is old.

use pgpair_core::authority::timing::Ms;
use pgpair_core::authority::{Directory, PgFacts};
use pgpair_core::ids::Term;
use pgpair_core::instance::{PostgresState, Role};
use pgpair_wire::certificates::CertificatesReport;
use pgpair_wire::report::{ArchiveReport, DefinitionsReport, Need, RejoinReport, SpaceReport};

use crate::postgres::postmaster::passwords::Reports;
use crate::postgres::promote::Promotion;
use crate::postgres::sql;

/// What the worker saw in one round.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When the volume and postgres were looked at for it.
    pub at: Ms,
    /// For the state machine.
    pub facts: PgFacts,
    /// All of SQL, if postgres answered.
    pub sql: Option<sql::SqlSnapshot>,
    /// The archive volume.
    pub archive: ArchiveReport,
    /// What this instance cannot do for itself.
    pub need: Option<Need>,
    /// The promotion that this worker carried out last.
    pub promotion: Option<(Term, Promotion)>,
    /// When the endpoint was pointed here, and in which term (Unix milliseconds).
    pub endpoint: Option<(Term, i64)>,
    /// How this instance joined its present primary.
    pub rejoin: Option<RejoinReport>,
    /// Generation of the configuration that postgres follows.
    pub config_generation: i64,
    /// Parameters of it that wait for a restart.
    pub pending_restart: Vec<String>,
    /// Parameters that this standby has more of than is configured, because its primary has.
    pub raised: Vec<String>,
    /// Logical slots of this primary, or those of which this standby has a copy that a promotion keeps.
    pub logical_slots: Vec<String>,
    /// Room on the volumes.
    pub space: SpaceReport,
    /// What fails again and again.
    pub trouble: Option<String>,
    /// What became of the passwords that the operator gave.
    pub passwords: Reports,
    /// What became of the roles and databases of the configuration.
    pub definitions: Option<DefinitionsReport>,
    /// The certificates of this instance.
    pub certificates: CertificatesReport,
    /// Why the agent cannot log in to its postgres.
    pub login_refused: Option<String>,
}

/// What was seen of a standby is not known any more after this many milliseconds. A round of the worker that waits in vain for an
/// answer of the peer takes 1.7 s.
const KNOWN_FOR_MS: u64 = 2_000;

/// Whether what was seen last of postgres still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It was seen then.
    Seen(Ms),
    /// That is too long ago.
    Lost,
}

impl Sight {
    /// What counts at `now` of `facts` that were seen at `at`.
    #[must_use]
    pub fn of(at: Ms, now: Ms, role: Role, facts: PgFacts) -> (Sight, PgFacts) {
        let sight = Sight::Seen(at);
        match sight.ends_at(role, &facts) {
            Some(end) if end <= now => (Sight::Lost, Sight::lose(&facts)),
            Some(_) | None => (sight, facts),
        }
    }

    /// When `facts` that were seen last are too old; `None`: they go on to count.
    ///
    /// Only what speaks for taking over gets old. A primary that is not seen, because its worker waits for a checkpoint, goes on: whether it
    /// hangs is looked at by a task of its own. What may write stays what may write until it is seen to be dead; and a directory that cannot
    /// take over has nothing to lose.
    #[must_use]
    pub fn ends_at(self, role: Role, facts: &PgFacts) -> Option<Ms> {
        let Sight::Seen(at) = self else { return None };
        let may_write = matches!(facts.state, PostgresState::Primary | PostgresState::Promoting);
        let counts = role == Role::Standby && facts.directory == Directory::Standby && !may_write;
        counts.then(|| at + KNOWN_FOR_MS)
    }

    /// What is left of facts that are too old: where the standby stood, which it can only be beyond. It is not known whether it runs and
    /// streams, nor whether there is a directory with which it could take over.
    #[must_use]
    pub fn lose(facts: &PgFacts) -> PgFacts {
        let state = match facts.state {
            PostgresState::Standby => PostgresState::Starting,
            other => other,
        };
        PgFacts { state, directory: Directory::Unknown, streaming: false, ..*facts }
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::authority::messages::{
        CanTake, CanTakeReply, CannotTake, Evidence, EvidenceKind, Heartbeat,
    };
    use pgpair_core::authority::timing::Timing;
    use pgpair_core::authority::view::ReadOutcome;
    use pgpair_core::authority::{
        Authority, Command, Durability, Durable, Event, NodeId, OnPostgresCrash, ReplyId, Settings,
    };
    use pgpair_core::ids::{Incarnation, InstanceId, SystemIdentifier, VolumeId};
    use pgpair_core::lsn::Lsn;
    use pgpair_core::record::{Holder, Mode, Record, RecordUid, Version, Versioned};
    use pgpair_core::timeline::TimelineId;

    use super::*;

    const NOW: Ms = Ms(100_000);
    const PRIMARY: Holder = Holder { instance: InstanceId::A, incarnation: Incarnation(1) };
    const STANDBY: Holder = Holder { instance: InstanceId::B, incarnation: Incarnation(2) };

    fn facts() -> PgFacts {
        PgFacts {
            state: PostgresState::Standby,
            directory: Directory::Standby,
            volume: Some(VolumeId(2)),
            timeline: Some(TimelineId(1)),
            flush: Some(Lsn(10)),
            streaming: true,
            ..PgFacts::default()
        }
    }

    /// A standby of a pair in `Paired`, long after its start, that has given a promise; its postgres was seen at [`NOW`].
    fn standby() -> Authority {
        let settings = Settings {
            timing: Timing::new(5_000).unwrap(),
            durability: Durability::Sync,
            max_lag: 1_000,
            automatic: true,
            on_crash: OnPostgresCrash::Failover,
        };
        let disk = Durable {
            record_uid: Some(RecordUid(1)),
            term: Term(1),
            longest_ttl_ms: 5_000,
            ..Durable::default()
        };
        let mut standby = Authority::new(STANDBY, NodeId(2), settings, disk, Ms(0));
        let mut echo = None;
        for seq in 1..=2 {
            let heartbeat =
                Heartbeat { term: Term(1), from: PRIMARY, seq, ttl_ms: 5_000, echo, version: None };
            let told = tell(&mut standby, NOW, Event::Heartbeat(ReplyId(seq), heartbeat));
            echo = told.iter().find_map(|c| match c {
                Command::AnswerHeartbeat(_, answer) => Some(answer.number),
                _ => None,
            });
        }
        tell(&mut standby, NOW, Event::Postgres(facts()));
        standby
    }

    /// Tells it, and answers each read that it asks for; what else it commands.
    fn tell(standby: &mut Authority, now: Ms, event: Event) -> Vec<Command> {
        let record = Record {
            term: Term(1),
            primary: PRIMARY,
            mode: Mode::Paired,
            primary_volume: Some(VolumeId(1)),
            standby_volume: Some(VolumeId(2)),
            system_identifier: Some(SystemIdentifier(1)),
            durability: Durability::Sync,
        };
        let (mut commands, mut others) = (standby.handle(now, event), Vec::new());
        while let Some(command) = commands.pop() {
            match command {
                Command::Read { asked } => {
                    let outcome =
                        ReadOutcome::Got(Versioned { uid: RecordUid(1), version: Version(7), record });
                    commands.extend(standby.handle(now, Event::Read { asked, outcome }));
                }
                other => others.push(other),
            }
        }
        others
    }

    fn can_take(standby: &mut Authority, now: Ms) -> Option<CanTakeReply> {
        let question = CanTake { term: Term(1), from: PRIMARY, ordered: false, down: true };
        let told = tell(standby, now, Event::CanTake(ReplyId(1), question));
        told.into_iter()
            .find_map(|c| if let Command::AnswerCanTake(_, reply) = c { Some(reply) } else { None })
    }

    #[test]
    fn a_standby_that_is_not_seen_any_more_says_no_and_takes_no_term_over() {
        let dead = Evidence { incarnation: PRIMARY.incarnation, kind: EvidenceKind::VolumeLock };
        for (late, counts) in [(KNOWN_FOR_MS - 1, true), (KNOWN_FOR_MS, false)] {
            let (mut standby, now) = (standby(), NOW + late);
            let (sight, known) = Sight::of(NOW, now, standby.role(), *standby.postgres());
            assert_eq!(sight == Sight::Lost, !counts);
            tell(&mut standby, now, Event::Postgres(known));
            let yes = CanTakeReply::Yes(STANDBY.incarnation);
            let no = CanTakeReply::No(CannotTake::NotStandby);
            assert_eq!(can_take(&mut standby, now), Some(if counts { yes } else { no }));
            let told = tell(&mut standby, now, Event::Evidence(dead));
            let takes = told.iter().any(|c| matches!(c, Command::Cas { .. }));
            assert_eq!(takes, counts, "{told:?}");
            // Seen again, it counts again.
            let (sight, known) = Sight::of(now, now, standby.role(), facts());
            assert_eq!((sight, known), (Sight::Seen(now), facts()));
            if !counts {
                let told = tell(&mut standby, now, Event::Postgres(known));
                assert!(told.iter().any(|c| matches!(c, Command::Cas { .. })), "{told:?}");
            }
        }
    }

    #[test]
    fn what_may_write_and_what_is_primary_goes_on_to_count() {
        let seen = Sight::Seen(NOW);
        assert_eq!(seen.ends_at(Role::Primary, &facts()), None);
        let writes = PgFacts { state: PostgresState::Primary, ..facts() };
        let own = PgFacts { directory: Directory::Primary, ..facts() };
        for facts in [writes, own, Sight::lose(&facts())] {
            assert_eq!(seen.ends_at(Role::Standby, &facts), None, "{facts:?}");
        }
        assert_eq!(
            Sight::lose(&PgFacts { state: PostgresState::Down, ..facts() }).state,
            PostgresState::Down
        );
    }
}
