//! What `make bench-scale` measures: the real operator with many pairs, whose pods are simulated.
//!
//! - [`sandbox`]: a network and processes of its own;
//! - [`plane`]: etcd and the API server in it, and [`audit`], what the API server answered to whom;
//! - [`pairs`]: the pairs, and their names and addresses;
//! - [`agents`]: what each simulated agent knows; [`door`]: how the operator reaches it, over mTLS;
//! - [`kubelet`]: pods and the status of StatefulSets;
//! - [`operator`]: the operator as a process, with what it takes; [`silence`]: agents that do not answer;
//! - [`stage`]: all of that together, and the waits for its states; [`measure`]: the measures;
//! - [`busy`]: who had the processors meanwhile;
//! - [`row`]: what was measured; [`page`], [`chart`]: for people.

pub mod agents;
pub mod audit;
pub mod busy;
pub mod chart;
pub mod door;
pub mod kubelet;
pub mod measure;
pub mod operator;
pub mod page;
pub mod pairs;
pub mod plane;
pub mod row;
pub mod sandbox;
pub mod silence;
pub mod stage;
