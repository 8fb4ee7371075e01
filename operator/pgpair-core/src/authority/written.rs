//! The state as a journal has it. Its form does not move with the parts of the state: format 3 of [`crate::journal`].

use serde::{Deserialize, Serialize};

use crate::authority::common::Common;
use crate::authority::event::ReplyId;
use crate::authority::facts::PgFacts;
use crate::authority::messages::{CanTake, StandbyInfo};
use crate::authority::orders::Orders;
use crate::authority::promises::{Given, Held, Promises};
use crate::authority::role::{Pairing, Part, Primary, Resign, Standby, Takeover};
use crate::authority::settings::{Durable, NodeId, Settings};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::View;
use crate::ids::Term;
use crate::instance::Role;
use crate::record::{Began, Holder};

#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    me: Holder,
    node: NodeId,
    timing: Timing,
    settings: Settings,
    durable: Durable,
    persisted: Durable,
    persisting: bool,
    born: Ms,
    quarantine_until: Ms,
    view: View,
    pg: PgFacts,
    held: Held,
    given: Given,
    peer: Option<(Ms, StandbyInfo)>,
    resign: Resign,
    takeover: Option<Takeover>,
    pairing: WrittenPairing,
    questions: Vec<(ReplyId, CanTake, Ms)>,
    orders: Orders,
    leaving: Option<Ms>,
    /// An earlier build wrote it within `resign`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<Term>,
    cas_tried: Option<Ms>,
    next_cas: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beginning: Option<(Term, Began)>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPairing {
    #[serde(flatten)]
    pairing: Pairing,
    sync_epoch: u32,
}

impl Written {
    pub(super) fn of(common: Common, part: Part) -> Written {
        let (Primary { pairing, resign }, Standby { takeover }) = match part {
            Part::Unknown => (Primary::default(), Standby::default()),
            Part::Primary(primary) => (primary, Standby::default()),
            Part::Standby(standby) => (Primary::default(), standby),
        };
        let Common {
            me,
            node,
            timing,
            settings,
            durable,
            persisted,
            persisting,
            born,
            view,
            promises: Promises { held, given, quarantine_until },
            pg,
            peer,
            sync_epoch,
            questions,
            orders,
            leaving,
            given_up,
            cas_tried,
            next_cas,
            beginning,
            out: _,
        } = common;
        Written {
            me,
            node,
            timing,
            settings,
            durable,
            persisted,
            persisting,
            born,
            quarantine_until,
            view,
            pg,
            held,
            given,
            peer,
            resign,
            takeover,
            pairing: WrittenPairing { pairing, sync_epoch },
            questions,
            orders,
            leaving,
            given_up,
            cas_tried,
            next_cas,
            beginning,
        }
    }

    /// Of both parts an earlier build wrote what it remembered, whatever the role.
    pub(super) fn read(self) -> (Common, Part) {
        let Written { me, node, timing, settings, durable, persisted, persisting, born, .. } = self;
        let Written { quarantine_until, view, pg, held, given, peer, resign, takeover, .. } = self;
        let Written { pairing, questions, orders, leaving, given_up, cas_tried, next_cas, beginning, .. } =
            self;
        let WrittenPairing { pairing, sync_epoch } = pairing;
        let resigned = matches!(resign, Resign::Resigned { .. }).then_some(durable.term);
        let common = Common {
            me,
            node,
            timing,
            settings,
            durable,
            persisted,
            persisting,
            born,
            view,
            promises: Promises { held, given, quarantine_until },
            pg,
            peer,
            sync_epoch,
            questions,
            orders,
            leaving,
            given_up: given_up.or(resigned),
            cas_tried,
            next_cas,
            beginning,
            out: Vec::new(),
        };
        let part = match common.role() {
            Role::Unknown => Part::Unknown,
            Role::Primary => Part::Primary(Primary { pairing, resign }),
            Role::Standby => Part::Standby(Standby { takeover }),
        };
        (common, part)
    }
}
