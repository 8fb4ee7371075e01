//! What is typed after `kubectl pgpair`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pgpair_api::order::CertificateKind;
use pgpair_core::ids::InstanceId;

/// PostgreSQL pairs, for people.
#[derive(Debug, Parser)]
#[command(name = "kubectl-pgpair", bin_name = "kubectl pgpair", version, about)]
pub struct Cli {
    /// Where and as whom.
    #[command(flatten)]
    pub access: Access,
    /// What.
    #[command(subcommand)]
    pub command: Command,
}

/// The same flags as those of kubectl.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// The kubeconfig; default: as kubectl finds it.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace; default: that of the context.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Roles, lag, archive, volumes, and the last failover
    Status {
        /// Name of the pair
        name: String,
        /// A page for people, or the resource's status as JSON
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
        /// Show it again whenever it changes, until interrupted
        #[arg(short, long)]
        watch: bool,
    },
    /// Hand over to the standby: a clean stop, no commit lost
    Switchover {
        /// Name of the pair
        name: String,
        #[command(flatten)]
        follow: Follow,
    },
    /// Make the standby primary although it may lack commits: only when the primary is dead for good
    Promote {
        /// Name of the pair
        name: String,
        /// You made sure of it: its node is off, or its container is gone for good
        #[arg(long, required = true)]
        primary_is_dead: bool,
        /// This instance instead of the standby: the one that the record names, when it has come up on another node
        #[arg(short, long)]
        instance: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
        #[command(flatten)]
        follow: Follow,
    },
    /// Stop postgres of one instance politely and start it again
    Restart(OneInstance),
    /// Stop postgres of one instance and keep it down
    Fence(OneInstance),
    /// End a fence
    Unfence(OneInstance),
    /// Copy the standby anew from the primary
    Rebuild {
        #[command(flatten)]
        one: OneInstance,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Make another password for a role, and follow until it is in effect
    RotatePassword {
        /// Name of the pair
        name: String,
        /// The role; default: the owner of the application's database
        #[arg(long)]
        role: Option<String>,
        #[command(flatten)]
        follow: Follow,
    },
    /// Make another certificate, revoke the one before, and follow until it is refused
    RevokeCertificate {
        /// Name of the pair
        name: String,
        /// Which one: Agent, Server, Replication or Restore of an instance, Operator, or Role
        #[arg(long)]
        certificate: CertificateKind,
        /// Whose: a, b, NAME-a or NAME-b; not for Operator and Role
        #[arg(long)]
        instance: Option<String>,
        /// Of which role of spec.roles; for Role
        #[arg(long)]
        role: Option<String>,
        #[command(flatten)]
        follow: Follow,
    },
    /// psql in the primary's container, as the owner of the application's database
    Psql {
        /// Name of the pair
        name: String,
        /// As the superuser `postgres`: whatever is found in a database's search path runs with all rights
        #[arg(long)]
        superuser: bool,
        /// This instance instead of the primary: a or b
        #[arg(short, long)]
        instance: Option<String>,
        /// Arguments of psql, after `--`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// What was found on the volumes of an earlier pair, and with --primary and --accept which of them becomes the primary's
    Adopt {
        /// Name of the pair
        name: String,
        /// Whose volume: a, b, NAME-a or NAME-b
        #[arg(long, requires = "accept")]
        primary: Option<String>,
        /// The word for what was found, by which this command asks
        #[arg(long, requires = "primary", value_name = "WORD")]
        accept: Option<String>,
    },
    /// The pair's certificates and when they end
    Certs {
        /// Name of the pair
        name: String,
        /// A table for people, or JSON
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

/// An order to one instance.
#[derive(Debug, Args)]
pub struct OneInstance {
    /// Name of the pair
    pub name: String,
    /// a or b; NAME-a and NAME-a-0 are understood too
    pub instance: String,
    #[command(flatten)]
    pub follow: Follow,
}

/// How an order is followed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Follow {
    /// Seconds to wait for the outcome
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// A sentence for people, or the outcome as JSON
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Give the order as the annotation of the pair, which needs the right to change the pair, and not as a PgPairOrder
    #[arg(long)]
    pub by_annotation: bool,
}

impl Follow {
    /// As a duration.
    #[must_use]
    pub fn limit(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// For what cannot be taken back.
#[derive(Debug, Clone, Copy, Args)]
pub struct Confirm {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Page,
    /// For programs.
    Json,
}

/// The instance that a person means by `text`.
///
/// # Errors
/// It is none of this pair's.
pub fn instance(pair: &str, text: &str) -> anyhow::Result<InstanceId> {
    let short = text.strip_prefix(pair).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text);
    let short = short.strip_suffix("-0").unwrap_or(short);
    short.parse().map_err(|_| anyhow::anyhow!("{text:?} is no instance of {pair}: use a or b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("kubectl-pgpair").chain(words.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_flags_of_kubectl_stand_before_or_after_the_verb() {
        for words in [
            "-n shop --context c --kubeconfig f switchover orders",
            "switchover orders -n shop --context c --kubeconfig f",
        ] {
            let access = parse(words).unwrap().access;
            assert_eq!(access.namespace.as_deref(), Some("shop"), "{words}");
            assert_eq!(access.context.as_deref(), Some("c"));
            assert_eq!(access.kubeconfig, Some(PathBuf::from("f")));
        }
    }

    #[test]
    fn a_promotion_needs_the_word_that_the_primary_is_dead() {
        let refused = parse("promote orders").unwrap_err().to_string();
        assert!(refused.contains("--primary-is-dead"), "{refused}");
        let Command::Promote { confirm, .. } = parse("promote orders --primary-is-dead").unwrap().command
        else {
            panic!("not a promotion")
        };
        assert!(!confirm.yes, "a person is asked unless told otherwise");
    }

    #[test]
    fn an_order_is_followed_for_two_minutes_unless_told_otherwise() {
        let limit = |words: &str| match parse(words).unwrap().command {
            Command::Restart(one) => one.follow.limit().as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit("restart orders a"), 120);
        assert_eq!(limit("restart orders a --timeout 5"), 5);
        assert!(parse("restart orders a --timeout 0").is_err());
    }

    #[test]
    fn what_follows_two_dashes_is_for_psql() {
        let Command::Psql { args, instance, .. } = parse("psql orders -i b -- -Atc -n").unwrap().command
        else {
            panic!("not psql")
        };
        assert_eq!((args, instance.as_deref()), (vec!["-Atc".to_owned(), "-n".to_owned()], Some("b")));
        let Command::Psql { superuser, .. } = parse("psql orders --superuser").unwrap().command else {
            panic!()
        };
        assert!(superuser);
        assert!(parse("psql orders select").is_err(), "psql's arguments need the two dashes");
    }

    #[test]
    fn an_instance_may_be_named_as_in_the_status() {
        for text in ["b", "orders-b", "orders-b-0"] {
            assert_eq!(instance("orders", text).unwrap(), InstanceId::B, "{text}");
        }
        for text in ["", "c", "other-b", "ordersb", "primary"] {
            assert!(instance("orders", text).is_err(), "{text}");
        }
        // A pair may be called like an instance.
        assert_eq!(instance("a", "a").unwrap(), InstanceId::A);
        assert_eq!(instance("a", "a-b").unwrap(), InstanceId::B);
    }
}
