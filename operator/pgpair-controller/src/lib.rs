//! The operator: watches pairs, builds their objects, seeds and rebuilds instances, and tells their state. It is never
//! needed for a failover.

pub mod act;
pub mod agent_client;
pub mod api;
pub mod apply;
pub mod build;
pub mod cache;
pub mod certificates;
pub mod children;
pub mod context;
pub mod control;
pub mod decide;
pub mod desired;
pub mod error;
pub mod events;
pub mod evidence;
#[cfg(test)]
mod fixtures;
pub mod health;
pub mod hear;
pub mod http;
pub mod leader;
pub mod managed;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mock_api;
pub mod neighbours;
pub mod observe;
pub mod observed;
pub mod orders;
pub mod outcome;
pub mod ownership;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod retry;
pub mod rollout;
pub mod run;
pub mod secrets;
pub mod status;
pub mod triggers;
pub mod trouble;
pub mod undecodable;
pub mod unrest;
pub mod watched;
