//! An order as it is given, and what to say about it. Pure.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use pgpair_api::order::{OrderReason, UserOrder, UserOrderKind};
use pgpair_core::ids::{InstanceId, Term};
use pgpair_core::order::OrderRefusal;
use pgpair_core::record::Record;

/// The order `kind` to `instance` (none where the kind says it), in the term that the record shows.
///
/// # Errors
/// The pair has no data yet.
pub fn new(
    kind: UserOrderKind,
    instance: Option<InstanceId>,
    record: &Record,
    id: String,
) -> anyhow::Result<UserOrder> {
    if record.term == Term(0) {
        bail!("the pair has no data yet, so there is nothing to order: see its status");
    }
    // The incarnation that the record names is the one that a person says is dead.
    let dead = (kind == UserOrderKind::Promote).then_some(record.primary.incarnation);
    Ok(UserOrder { id, kind, instance, term: record.term, dead, role: None, certificate: None })
}

/// What to do after a refusal of pair `name`, in one line. `None` for a reason that is not an agent's.
#[must_use]
pub fn next_step(name: &str, reason: OrderReason) -> Option<String> {
    let OrderReason::Refused(why) = reason else { return None };
    let look = format!("look at it with `kubectl pgpair status {name}`");
    Some(match why {
        OrderRefusal::TermIsOver | OrderRefusal::OtherIncarnation => {
            format!("{look}, and order again if it is still wanted")
        }
        OrderRefusal::RecordUnknown => {
            "order again when the API server answers the agents; their log says what they see".into()
        }
        OrderRefusal::NotPrimary | OrderRefusal::NotStandby => {
            format!("{look}, and name the other instance if that was meant")
        }
        OrderRefusal::NotPaired => format!(
            "wait with `kubectl wait pgreplicapair/{name} --for=condition=FailoverReady --timeout=5m`, then order again"
        ),
        OrderRefusal::Busy => {
            format!("watch it with `kubectl pgpair status {name} --watch`, then order again")
        }
        OrderRefusal::PrimaryIsAlive => format!(
            "use `kubectl pgpair switchover {name}`; if its agent answers and its postgres is broken, `kubectl pgpair fence {name} INSTANCE` hands over too"
        ),
        OrderRefusal::StandbyCannot => {
            format!("{look}: the line below the standby says what it waits for; its log says more")
        }
        OrderRefusal::ReplayBehind => format!(
            "{look}: the line `lag` tells how far replay is behind; a long query on the standby may hold it up"
        ),
        OrderRefusal::TimedOut => format!("{look}, then order again: nothing was changed"),
        OrderRefusal::NoData => format!("copy it anew: `kubectl pgpair rebuild {name} INSTANCE`"),
    })
}

/// The first part of an id: another one each time.
#[must_use]
pub fn word(random: u32) -> String {
    format!("{random:08x}")
}

/// Asks for the name of the pair.
///
/// # Errors
/// Another word came, or none.
pub fn confirm(name: &str, input: &mut impl BufRead, output: &mut impl Write) -> anyhow::Result<()> {
    write!(output, "Type the name of the pair to go on: ").context("asking")?;
    output.flush().context("asking")?;
    let mut line = String::new();
    let read = input.read_line(&mut line).context("reading the answer")?;
    if read == 0 {
        bail!("nobody answered, so nothing was ordered: use --yes where no person is");
    }
    if line.trim() != name {
        bail!("that is not {name}: nothing was ordered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pgpair_api::order::{OrderStage, order_id};
    use pgpair_core::ids::{Incarnation, SystemIdentifier, VolumeId};
    use pgpair_core::record::{Holder, Mode};

    use super::*;

    fn record() -> Record {
        Record {
            term: Term(4),
            primary: Holder { instance: InstanceId::A, incarnation: Incarnation(0xfeed) },
            mode: Mode::Solo,
            primary_volume: Some(VolumeId(1)),
            system_identifier: Some(SystemIdentifier(1)),
            ..Record::initial()
        }
    }

    const KINDS: [(UserOrderKind, Option<InstanceId>); 7] = [
        (UserOrderKind::RotatePassword, None),
        (UserOrderKind::Switchover, None),
        (UserOrderKind::Promote, None),
        (UserOrderKind::Restart, Some(InstanceId::A)),
        (UserOrderKind::Fence, Some(InstanceId::B)),
        (UserOrderKind::Unfence, Some(InstanceId::B)),
        (UserOrderKind::Rebuild, Some(InstanceId::B)),
    ];

    #[test]
    fn whatever_is_written_the_operator_understands() {
        const NOW: i64 = 1_795_262_400;
        for (kind, instance) in KINDS {
            let order = new(kind, instance, &record(), order_id(NOW, &word(0xab))).unwrap();
            let read = UserOrder::parse(&order.to_json()).unwrap();
            assert_eq!(read, order);
            assert!(read.check(NOW + 5).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn a_promotion_names_the_incarnation_and_the_term_of_the_record_and_nothing_else_does() {
        let order = new(UserOrderKind::Promote, None, &record(), "x".into()).unwrap();
        assert_eq!((order.dead, order.term), (Some(Incarnation(0xfeed)), Term(4)));
        assert_eq!(new(UserOrderKind::Switchover, None, &record(), "x".into()).unwrap().dead, None);
    }

    #[test]
    fn a_pair_without_data_gets_no_order() {
        assert!(new(UserOrderKind::Switchover, None, &Record::initial(), "x".into()).is_err());
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let next = next_step("orders", OrderReason::Refused(OrderRefusal::NotPaired)).unwrap();
        assert!(next.contains("pgreplicapair/orders --for=condition=FailoverReady"), "{next}");
        let next = next_step("orders", OrderReason::Refused(OrderRefusal::PrimaryIsAlive)).unwrap();
        assert!(next.contains("switchover orders"), "{next}");
        assert_eq!(next_step("orders", OrderStage::Withdrawn.into()), None);
    }

    #[test]
    fn only_the_name_of_the_pair_confirms() {
        let ask = |answer: &str| confirm("orders", &mut answer.as_bytes(), &mut Vec::new());
        assert!(ask("orders\n").is_ok());
        assert!(ask("y\n").is_err());
        assert!(ask("order\n").is_err());
        assert!(ask("").unwrap_err().to_string().contains("--yes"));
    }
}
