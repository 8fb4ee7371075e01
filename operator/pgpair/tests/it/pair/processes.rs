//! Processes of an agent.

use std::fs;
use std::time::Duration;

pub fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// Stops the root first, so that it cannot act on the death of its children, then kills all.
pub fn kill_tree(root: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = |p: u32| i32::try_from(p).ok().and_then(Pid::from_raw).unwrap();
    let _ = kill_process(pid(root), Signal::STOP);
    for _ in 0..50 {
        let mut all = vec![root];
        let mut at = 0;
        while let Some(p) = all.get(at).copied() {
            at += 1;
            all.extend(children_of(p));
        }
        if all.len() == 1 {
            break;
        }
        for p in all.iter().skip(1) {
            let _ = kill_process(pid(*p), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = kill_process(pid(root), Signal::KILL);
}
