//! The state as a journal has it. Its form does not move with the parts of the state: format 2 of [`crate::journal`].

use serde::{Deserialize, Serialize};

use crate::authority::common::Common;
use crate::authority::event::ReplyId;
use crate::authority::facts::PgFacts;
use crate::authority::messages::{CanTake, StandbyInfo};
use crate::authority::orders::Orders;
use crate::authority::promises::{Given, Held, Promises};
use crate::authority::role::{Pairing, Primary, Resign, Standby, Takeover};
use crate::authority::settings::{Durable, NodeId, Settings};
use crate::authority::timing::{Ms, Timing};
use crate::authority::view::View;
use crate::record::Holder;

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
    cas_tried: Option<Ms>,
    next_cas: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenPairing {
    #[serde(flatten)]
    pairing: Pairing,
    sync_epoch: u32,
}

impl Written {
    pub(super) fn of(common: Common, primary: Primary, standby: Standby) -> Written {
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
            cas_tried,
            next_cas,
            out: _,
        } = common;
        let (Primary { pairing, resign }, Standby { takeover }) = (primary, standby);
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
            cas_tried,
            next_cas,
        }
    }

    pub(super) fn read(self) -> (Common, Primary, Standby) {
        let Written { me, node, timing, settings, durable, persisted, persisting, born, .. } = self;
        let Written { quarantine_until, view, pg, held, given, peer, resign, takeover, .. } = self;
        let Written { pairing, questions, orders, leaving, cas_tried, next_cas, .. } = self;
        let WrittenPairing { pairing, sync_epoch } = pairing;
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
            cas_tried,
            next_cas,
            out: Vec::new(),
        };
        (common, Primary { pairing, resign }, Standby { takeover })
    }
}
