//! The authority protocol under a model checker: [stateright] drives the *shipped*
//! [`Authority`](pgpair_core::authority::Authority) of both agents, together with the record, the messages, the disks and
//! two postgres, through every order of events within [`bounds`], and holds each state against the [`claims`].
//!
//! Nothing of the protocol is written here a second time. Written here is the world: what a message, a read, a write of
//! the record, a crash does ([`step`]), and what the worker and postgres do with a wish ([`server`]).
//!
//! # Time
//!
//! Each agent has a clock of its own, and each clock moves on its own, in steps of `ttl / grain` and a little more
//! ([`bounds::Bounds::unit`]). Between two steps anything may happen; a clock that does not move is an agent that is
//! fast, and one that moves alone is a network that is slow. There is **one** relation between the clocks
//! ([`world::Bond`]): before the giver of a promise sees it lapse, the holder's clock has passed `ttl` after the sending
//! of the heartbeat. That is what two real clocks within the drift margin guarantee, for a message is never received
//! before it is sent. That the fence, which the shipped code computes, falls before that moment is not assumed; it is
//! what S1 finds out. In everything else the clocks are free, so more can happen here than in reality, never less: a
//! claim that holds here does not rest on any other relation between two clocks.
//!
//! `ttl` is the longest that is allowed (60 s), so that the fixed times of the protocol (retries, pauses, budgets of
//! 1 to 30 s) are within one or two steps.
//!
//! # Why it is finite
//!
//! After each event a state is brought into the form that all states share which look the same to the protocol
//! ([`pgpair_core::authority::walk`]): the clock always shows the same, and it is the past that moves. An age counts only up to
//! the longest span that the code ever asks for; a deadline that is over is over; versions, heartbeats, answers and
//! writes are numbered by their order; what nobody else knows of any more is forgotten. So the code must ask of such numbers only which is
//! the later one of the same process, or whether they are the same: once it compared numbers of two processes, and what that did
//! (a restarted standby was paired with late) could not be seen here. The walk takes each struct of the protocol apart
//! without `..`: a new field does not compile until it is said what it is.
//!
//! # What is left out
//!
//! Left out of time: orders of events inside one agent that are closer together than one step (two attempts at the same
//! write within `ttl / 2` need `grain` 4); a request of an agent that is answered after its own clock has moved, except
//! for writes that land late ([`bounds::Bounds::unknown`]) and for messages that arrive late and doubled
//! ([`bounds::Bounds::late`]); the budgets for the proof of synchronous commit and for a start, and the pause before
//! pairing again, which is none. Left out of the world: one instance on two nodes, a changed `ttl` or durability, a
//! person who is wrong about a death, a hang that not even SIGKILL ends. Links and the API server need no state of their own: every event may stay away for ever.
//! Without [`bounds::Bounds::fine`] an answer arrives together with its heartbeat, or late, or never; the worker goes on
//! until nothing is left to do; a reply to a write arrives with its landing or never.
//!
//! # With running time
//!
//! [`timed`] drives the same world in another way: its clocks run, and a seeded generator draws one history of minutes. What only
//! times decide is tried there.
//!
//! # How to run it
//!
//! `make model`: the runs of [`runs::CI`] with their pinned numbers of states; `make model-deep`: those of
//! [`runs::DEEP`]; `pgpair-model crashes=1 commits=1 depth=14`: one of your own.

pub mod action;
pub mod bounds;
pub mod calm;
mod canon;
pub mod claims;
pub mod fault;
mod kept;
pub mod mutations;
pub mod page;
pub mod pair;
pub mod replay;
pub mod rng;
pub mod runs;
pub mod server;
pub mod step;
pub mod storm;
pub mod timed;
pub mod trouble;
pub mod world;
