//! What can be done to a pair and its cluster: things that are broken and mended, blows, and waits. Data; `stage.rs` does it.

/// One of the two roles, as they were before the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who was primary.
    Primary,
    /// Who was standby.
    Standby,
}

/// A volume of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// Data directory and log.
    Data,
    /// The archive.
    Archive,
}

/// What does not reach whom. Packets are dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The node and everybody.
    Node(Side),
    /// The node and the API server.
    Api(Side),
    /// The two nodes.
    Peers,
    /// From the node to the other one; the other way is free.
    FromToPeer(Side),
    /// From the node to the API server; answers of earlier requests still come.
    ToApi(Side),
    /// From the API server to the node.
    FromApi(Side),
}

/// What is broken until it is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// SIGSTOP of the agent; its init process and postgres run.
    Agent(Side),
    /// SIGSTOP of the postmaster; its backends run.
    Postmaster(Side),
    /// SIGSTOP of the standby's walreceiver.
    Walreceiver,
    /// Every process of the pod stopped at once.
    Pod(Side),
    /// The node's power.
    Power(Side),
    /// Packets.
    Link(Cut),
    /// SIGKILL of the API server.
    ApiServer,
    /// SIGSTOP of the API server: connections are accepted, nothing is answered.
    ApiAnswers,
    /// SIGKILL of etcd.
    Etcd,
    /// No process of the operator.
    Operator,
    /// No byte is free on the volume.
    Room(Side, Volume),
    /// Whoever writes to the volume hangs.
    Disk(Side, Volume),
    /// Every process of the clients stopped: nobody writes.
    Writers,
    /// The agent's wall clock runs so many seconds ahead.
    Clock(Side, i32),
}

/// What is done once and has nothing to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL of the postmaster.
    Postmaster(Side),
    /// SIGKILL of a backend of the primary that waits for its commit.
    Backend,
    /// SIGKILL of the agent, the child of PID 1.
    Agent(Side),
    /// SIGKILL of PID 1 of the container.
    Container(Side),
    /// SIGKILL of PID 1 of both containers, one right after the other.
    Containers,
    /// `kubectl delete pod`.
    Delete(Side),
    /// `kubectl delete pod --force --grace-period=0`.
    DeleteForce(Side),
    /// Both pods, forced.
    DeleteBoth,
    /// Some 320 MB of log on the primary, as far as they come.
    Flood,
    /// A person orders a switchover.
    Switchover,
    /// The primary's data directory is gone, and its container is killed.
    LoseData,
}

/// One step of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// From now on.
    Break(Thing),
    /// Until now.
    Mend(Thing),
    /// Once.
    Strike(Blow),
    /// The length of a fault in seconds; no wait for something.
    Wait(u64),
    /// Until a client has written on a new connection, at most so many seconds.
    Served(u64),
    /// Until the record says `Solo`, at most so many seconds.
    Solo(u64),
    /// Broken for `off_ms`, whole for `on_ms`, so many times.
    Bursts {
        /// What.
        thing: Thing,
        /// How often.
        times: u32,
        /// Broken each time.
        off_ms: u64,
        /// Whole after each time.
        on_ms: u64,
    },
}

impl Act {
    /// Whether time is to pass in it. What stands before the first such act is the making of the fault.
    #[must_use]
    pub fn waits(self) -> bool {
        match self {
            Act::Break(_) | Act::Mend(_) | Act::Strike(_) => false,
            Act::Wait(_) | Act::Served(_) | Act::Solo(_) | Act::Bursts { .. } => true,
        }
    }
}
