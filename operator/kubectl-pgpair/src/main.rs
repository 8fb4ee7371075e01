//! `kubectl pgpair`: what a person wants to know about a pair.

mod page;

use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config};
use pgpair_api::PgReplicaPair;

/// For the API server to answer.
const LIMIT: Duration = Duration::from_secs(15);

#[derive(Parser)]
#[command(name = "kubectl pgpair", version, about = "PostgreSQL pairs, for people")]
struct Args {
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Namespace; default: that of the context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Roles, lag, archive, and the last failover.
    Status {
        /// Name of the pair.
        name: String,
        /// A page for people, or the resource's status as JSON.
        #[arg(short, long, value_enum, default_value_t = Output::Page)]
        output: Output,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Page,
    Json,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // An error means that another provider was installed before, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_kubeconfig(&options).await.context("reading the kubeconfig")?;
    let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("building a client of the cluster")?;
    match args.command {
        Command::Status { name, output } => status(client, &namespace, &name, output).await,
    }
}

async fn status(client: Client, namespace: &str, name: &str, output: Output) -> anyhow::Result<()> {
    let api: Api<PgReplicaPair> = Api::namespaced(client, namespace);
    let pair = tokio::time::timeout(LIMIT, api.get(name))
        .await
        .with_context(|| format!("the cluster's API did not answer within {} s", LIMIT.as_secs()))?
        .with_context(|| format!("reading pair {namespace}/{name}"))?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&pair.status)?),
        Output::Page => print!("{}", page::render(&pair, Timestamp::now())),
    }
    Ok(())
}
