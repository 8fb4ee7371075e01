//! `kubectl pgpair`: what a person wants to know about a pair, and what a person may order.

mod adopt;
mod args;
mod certs;
mod cluster;
mod follow;
#[cfg(test)]
mod mock;
mod order;
mod orders;
mod page;
mod psql;
mod status;

use std::process::ExitCode;

use clap::Parser;
use pgpair_api::order::UserOrderKind;

use crate::args::{Cli, Command};
use crate::cluster::Cluster;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // An error means that another provider was installed before, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // It may hold words of a tenant, such as the name of an object.
            let lines: Vec<String> = format!("{e:#}").lines().map(pgpair_wire::words::plain).collect();
            eprintln!("error: {}", lines.join("\n"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&cli.access).await?;
    match cli.command {
        Command::Status { name, output, watch: false } => status::once(&cluster, &name, output).await,
        Command::Status { name, output, watch: true } => status::watch(&cluster, &name, output).await,
        Command::Switchover { name, follow } => orders::switchover(&cluster, &name, follow).await,
        // Whether the primary is dead was asked by the parser; the agent looks again.
        Command::Promote { name, primary_is_dead: _, instance, confirm, follow } => {
            orders::promote(&cluster, &name, instance.as_deref(), confirm, follow).await
        }
        Command::Restart(one) => orders::simple(&cluster, UserOrderKind::Restart, &one).await,
        Command::Fence(one) => orders::simple(&cluster, UserOrderKind::Fence, &one).await,
        Command::Unfence(one) => orders::simple(&cluster, UserOrderKind::Unfence, &one).await,
        Command::Rebuild { one, confirm } => orders::rebuild(&cluster, &one, confirm).await,
        Command::RotatePassword { name, role, follow } => {
            orders::rotate_password(&cluster, &name, role, follow).await
        }
        Command::RevokeCertificate { name, certificate, instance, role, follow } => {
            let instance = instance.map(|text| args::instance(&name, &text)).transpose()?;
            orders::revoke_certificate(&cluster, &name, certificate, (instance, role), follow).await
        }
        Command::Psql { name, superuser, instance, args } => {
            let pair = cluster.pair(&name).await?;
            let instance = match instance {
                Some(text) => args::instance(&name, &text)?,
                None => cluster.record(&name).await?.primary.instance,
            };
            let pod = format!("{name}-{instance}-0");
            let bootstrap = &pair.spec.bootstrap;
            let role = if superuser { "postgres" } else { &bootstrap.owner };
            let login = psql::Login { role, database: &bootstrap.database };
            psql::run(&cli.access, &cluster.namespace, &pod, login, &args)
        }
        Command::Adopt { name, primary, accept } => {
            let primary = primary.map(|text| args::instance(&name, &text)).transpose()?;
            adopt::run(&cluster, &name, primary.zip(accept)).await
        }
        Command::Certs { name, output } => certs::show(&cluster, &name, output).await,
    }
}
