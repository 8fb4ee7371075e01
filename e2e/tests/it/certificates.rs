//! Certificates: one of a person for postgres, revocation, and one authority after another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use pgpair_api::order::UserOrderKind;
use pgpair_api::status::{ConditionType, OrderState, Reason};
use pgpair_core::ids::InstanceId;
use pgpair_e2e::harness::operator::{self, Kept};
use pgpair_e2e::harness::pair::Pair;
use pgpair_e2e::harness::rolls::starts;
use pgpair_e2e::harness::status::{await_told, condition};
use pgpair_e2e::harness::wait::await_condition;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use crate::Outcome;
use crate::context::Context;

/// For a pair from nothing to `Paired`.
const BRING_UP: Duration = Duration::from_secs(240);
/// What is new in a Secret, or was revoked, is in effect within this time.
const MINUTE: Duration = Duration::from_secs(60);
/// For an order: the new certificate comes into use, and the one before is refused.
const ORDER: Duration = Duration::from_secs(60);
/// For a step of a rotation, whose hour has been shortened: the kubelet brings Secrets within two minutes.
const STEP: Duration = Duration::from_secs(240);

/// An authority of a person.
struct Company {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Company {
    fn new() -> anyhow::Result<Company> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "company");
        let pem = params.self_signed(&key)?.pem();
        Ok(Company { issuer: Issuer::new(params, key), pem })
    }

    /// A Secret with a certificate for these names, new each time.
    async fn offer(&self, pair: &Pair, names: Vec<String>) -> anyhow::Result<String> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?.pem();
        let data = json!({"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": self.pem});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "db-cert"}, "stringData": data,
        });
        let params = PatchParams::apply("e2e").force();
        let applied = secrets(pair).patch("db-cert", &params, &Patch::Apply(&secret)).await;
        applied.context("writing the Secret of a person")?;
        Ok(certificate)
    }
}

fn secrets(pair: &Pair) -> Api<Secret> {
    Api::namespaced(pair.cluster.client.clone(), &pair.names.namespace)
}

async fn text(pair: &Pair, secret: &str, key: &str) -> anyhow::Result<String> {
    let found = secrets(pair).get(secret).await.with_context(|| format!("reading Secret {secret}"))?;
    let bytes = found.data.and_then(|mut data| data.remove(key)).map(|ByteString(bytes)| bytes);
    String::from_utf8(bytes.with_context(|| format!("Secret {secret} has no {key}"))?).context("no text")
}

/// A pair of its own, and which instance is its primary.
async fn pair(c: &mut Context, name: &str) -> anyhow::Result<(Pair, InstanceId)> {
    let pair = c.bring_up(name, 17).await?;
    let primary = pair.primary_of(&pair.status().await?)?;
    Ok((pair, primary))
}

/// A certificate of a person is shown without a restart and renewed within a minute, clients verify it by the `ca.crt` of their Secret, the standby
/// streams on, also after a switchover; one that cannot be used is refused in words; without the field the pair shows its own again.
pub async fn a_certificate_of_a_person_is_shown_and_renewed_without_a_restart(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let (pair, primary) = pair(c, "shown").await?;
    let walked = show(&pair, primary).await;
    pair.explain(walked).await?;
    Ok(Outcome::Passed)
}

async fn show(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let type_ = ConditionType::ServerCertificate;
    let (company, names, before) = (Company::new()?, pair.names.server_names(), starts(pair).await?);
    company.offer(pair, vec!["db.example.com".into()]).await?;
    pair.set(&json!({"tls": {"serverSecret": "db-cert"}})).await?;
    await_told(pair, type_, Reason::CertificateRefused, &["shown-rw"], MINUTE).await?;
    company.offer(pair, names.clone()).await?;
    await_told(pair, type_, Reason::CertificateInEffect, &["db-cert"], MINUTE).await?;
    verifies(pair, primary, &company.pem).await?;
    verifies(pair, primary, &pair.app_secret("ca.crt").await?).await?;
    let begun = Instant::now();
    let renewed = company.offer(pair, names).await?;
    await_condition("both instances have the renewed certificate", MINUTE, || async {
        for instance in InstanceId::ALL {
            let secret = pair.names.tls_secret(instance);
            ensure!(text(pair, &secret, "server.crt").await? == renewed, "{secret} has another one");
        }
        let status = pair.status().await?;
        ensure!(condition(&status, type_)?.reason == Reason::CertificateInEffect.as_str(), "not in effect");
        Ok(())
    })
    .await?;
    ensure!(begun.elapsed() <= MINUTE, "it took {:?}", begun.elapsed());
    ensure!(starts(pair).await? == before, "postgres was restarted");
    let term = pair.status().await?.term.context("no term")?;
    pair.order(&json!({"kind": "Switchover"})).await?;
    let status = pair.await_paired(term + 1, BRING_UP).await?;
    let primary = pair.primary_of(&status)?;
    verifies(pair, primary, &company.pem).await?;
    pair.set(&json!({"tls": {"serverSecret": null}})).await?;
    await_condition("the pair shows its own certificate again", MINUTE, || async {
        ensure!(verifies(pair, primary, &company.pem).await.is_err(), "it shows the company's");
        verifies(pair, primary, &pair.app_secret("ca.crt").await?).await
    })
    .await?;
    pair.await_paired(term + 1, MINUTE).await.map(|_| ())
}

/// A client that trusts this authority finds the Service behind its name.
async fn verifies(pair: &Pair, from: InstanceId, ca: &str) -> anyhow::Result<()> {
    let (file, password) = ("/tmp/e2e-ca.crt", pair.app_secret("password").await?);
    let (host, at) = (format!("{}.{}.svc", pair.names.rw(), pair.names.namespace), pair.rw_address().await?);
    let to = format!(
        "host={host} hostaddr={at} user=app dbname=app sslmode=verify-full sslrootcert={file} connect_timeout=5"
    );
    let script =
        format!("printf '%s' '{ca}' > {file} && PGPASSWORD='{password}' psql -X -w -Atc 'SELECT 1' '{to}'");
    let said = pair.shell(from, &script).await?;
    ensure!(said == "1", "said: {said}");
    Ok(())
}

/// cert-manager makes the certificate that the operator asks for, renews it, and is forgotten with the field.
pub async fn cert_manager_makes_the_certificate_of_postgres(c: &mut Context) -> anyhow::Result<Outcome> {
    let (pair, primary) = pair(c, "issued").await?;
    let walked = issue(&pair, primary).await;
    pair.explain(walked).await?;
    Ok(Outcome::Passed)
}

async fn issue(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let namespace = &pair.names.namespace;
    let authority = format!(
        "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {{name: itself, namespace: {namespace}}}\nspec: {{selfSigned: {{}}}}\n---\n\
         apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {{name: company, namespace: {namespace}}}\n\
         spec: {{isCA: true, commonName: company, secretName: company, issuerRef: {{name: itself}}}}\n---\n\
         apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {{name: company, namespace: {namespace}}}\nspec: {{ca: {{secretName: company}}}}\n"
    );
    pair.cluster.kubectl_with_input(&["apply", "-f", "-"], &authority).await?;
    let (type_, before) = (ConditionType::ServerCertificate, starts(pair).await?);
    pair.set(&json!({"tls": {"issuerRef": {"name": "company"}}})).await?;
    await_told(pair, type_, Reason::CertificateInEffect, &["issued-server-tls"], MINUTE * 2).await?;
    let company = text(pair, "company", "tls.crt").await?;
    verifies(pair, primary, &company).await?;
    let first = text(pair, "issued-server-tls", "tls.crt").await?;
    // Without its Secret cert-manager makes another certificate.
    secrets(pair)
        .delete("issued-server-tls", &DeleteParams::default())
        .await
        .context("deleting the Secret")?;
    await_condition("the instances have the next certificate", MINUTE * 2, || async {
        let next = text(pair, "issued-server-tls", "tls.crt").await?;
        ensure!(next != first, "there is no other yet");
        for instance in InstanceId::ALL {
            let shown = text(pair, &pair.names.tls_secret(instance), "server.crt").await?;
            ensure!(shown == next, "{instance} has another one");
        }
        Ok(())
    })
    .await?;
    verifies(pair, primary, &company).await?;
    ensure!(starts(pair).await? == before, "postgres was restarted");
    pair.set(&json!({"tls": {"issuerRef": null}})).await?;
    await_condition("the pair shows its own certificate again", MINUTE, || async {
        ensure!(verifies(pair, primary, &company).await.is_err(), "it shows the company's");
        verifies(pair, primary, &pair.app_secret("ca.crt").await?).await?;
        let left =
            ["get", "certificate", "issued-server", "-n", namespace, "--ignore-not-found", "-o", "name"];
        let left = pair.cluster.kubectl(&left).await?;
        ensure!(left.is_empty(), "cert-manager is still asked for {left}");
        Ok(())
    })
    .await?;
    pair.await_paired(1, MINUTE).await.map(|_| ())
}

/// What somebody has copied out of the Secret of an instance is of no use a minute after the order, while the pair stays `Paired` and nothing
/// is restarted.
pub async fn a_revoked_certificate_is_refused_within_a_minute(c: &mut Context) -> anyhow::Result<Outcome> {
    let (pair, primary) = pair(c, "revoked").await?;
    let walked = revoke(&pair, primary).await;
    pair.explain(walked).await?;
    Ok(Outcome::Passed)
}

async fn revoke(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let (standby, before) = (primary.peer(), starts(pair).await?);
    let secret = pair.names.tls_secret(standby);
    let stolen =
        (text(pair, &secret, "replication.crt").await?, text(pair, &secret, "replication.key").await?);
    let of_standby = ("pgpair_replication", &stolen);
    ensure!(logs_in_with(pair, primary, of_standby).await?, "the certificate works before");
    let stolen_of_role = certify_role(pair, primary).await?;
    for certificate in ["Replication", "Agent", "Server", "Restore", "Operator", "Role"] {
        let begun = Instant::now();
        let mut order = json!({"kind": "RevokeCertificate", "certificate": certificate});
        match certificate {
            "Operator" => {}
            "Role" => order["role"] = json!("daily_report"),
            _ => order["instance"] = json!(standby.as_str()),
        }
        let last = pair.status().await?.order.map(|order| order.id);
        pair.order(&order).await?;
        await_condition("the order is done", ORDER, || async {
            let order = pair.status().await?.order.context("no order")?;
            let is_this = order.kind.is(UserOrderKind::RevokeCertificate) && Some(&order.id) != last.as_ref();
            ensure!(is_this && order.state.is(OrderState::Done), "{order:?}");
            Ok(())
        })
        .await
        .with_context(|| format!("revoking {certificate}"))?;
        ensure!(!logs_in_with(pair, primary, of_standby).await?, "it is let in still");
        ensure!(begun.elapsed() <= MINUTE, "{certificate} took {:?}", begun.elapsed());
        // The standby connects anew, by the list that it has now.
        let status = pair.await_paired(1, MINUTE).await?;
        ensure!(status.term == Some(1), "{certificate}: term {:?}", status.term);
    }
    ensure!(
        !logs_in_with(pair, primary, ("daily_report", &stolen_of_role)).await?,
        "the role is let in still"
    );
    let renewed = certificate_of(pair, "revoked.role-daily-report-tls").await?;
    ensure!(logs_in_with(pair, primary, ("daily_report", &renewed)).await?, "the next one is of no use");
    pair.await_equal("SELECT pg_is_in_recovery() IS NOT NULL", MINUTE).await?;
    ensure!(starts(pair).await? == before, "postgres was restarted");
    Ok(())
}

async fn certificate_of(pair: &Pair, secret: &str) -> anyhow::Result<(String, String)> {
    Ok((text(pair, secret, "tls.crt").await?, text(pair, secret, "tls.key").await?))
}

/// A role of the spec that logs in by its certificate, on both instances, and by nothing else.
async fn certify_role(pair: &Pair, primary: InstanceId) -> anyhow::Result<(String, String)> {
    let trusting = json!(["hostssl all all all trust"]);
    let role = json!({"name": "daily_report", "certificate": true});
    pair.set(&json!({"roles": [role], "postgres": {"hba": trusting}})).await?;
    let certificate = await_condition("the role gets in by its certificate", MINUTE, || async {
        let certificate = certificate_of(pair, "revoked.role-daily-report-tls").await?;
        for instance in InstanceId::ALL {
            let gets_in = logs_in_with(pair, instance, ("daily_report", &certificate)).await?;
            ensure!(gets_in, "{instance} does not let it in");
        }
        Ok(certificate)
    })
    .await?;
    let host = pair.address(primary).await?;
    let to = format!("host={host} user=daily_report dbname=postgres sslmode=require connect_timeout=5");
    let said = pair.shell(primary, &format!("psql -X -w -Atc 'SELECT 1' '{to}' 2>&1 || true")).await?;
    ensure!(said.contains("requires a valid client certificate"), "without a certificate: {said}");
    Ok(certificate)
}

/// Whether the role is let in with this certificate and key.
async fn logs_in_with(
    pair: &Pair,
    primary: InstanceId,
    (role, (certificate, key)): (&str, &(String, String)),
) -> anyhow::Result<bool> {
    let host = pair.address(primary).await?;
    let to = format!(
        "host={host} user={role} dbname=postgres sslmode=require sslcert=/tmp/stolen.crt sslkey=/tmp/stolen.key connect_timeout=5"
    );
    let script = format!(
        "umask 077; printf '%s' '{certificate}' > /tmp/stolen.crt; printf '%s' '{key}' > /tmp/stolen.key; \
         psql -X -w -Atc 'SELECT 1' '{to}' 2>&1 || true"
    );
    let said = pair.shell(primary, &script).await?;
    // Postgres may have closed the connection before libpq reads why.
    let refusals = [
        "SSL",
        "revoked",
        "reset by peer",
        "closed the connection",
        "no password supplied",
        "does not exist",
    ];
    let is_refused = refusals.iter().any(|w| said.contains(w));
    ensure!(said == "1" || is_refused, "said: {said}");
    Ok(said == "1")
}

/// The authority is replaced, and with it every certificate, by deleting its Secret; with the hours between its steps shortened by the
/// annotation of the Secrets, as the guide says. The pair stays `Paired` all the time.
pub async fn an_authority_follows_another_without_an_interruption(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let (pair, primary) = pair(c, "rotated").await?;
    let walked = rotate(&pair, primary).await;
    pair.explain(walked).await?;
    Ok(Outcome::Passed)
}

async fn rotate(pair: &Pair, primary: InstanceId) -> anyhow::Result<()> {
    let before = starts(pair).await?;
    let (old_ca, old_leaf) =
        (pair.app_secret("ca.crt").await?, text(pair, "rotated-a-tls", "tls.crt").await?);
    let kept = Kept::of(pair).await?;
    let deleted = kept.secrets.delete(&kept.authority, &DeleteParams::default()).await;
    deleted.context("deleting the authority")?;
    for (authorities, said) in [(2, "both are trusted"), (2, "the new one signs"), (1, "the old one is gone")]
    {
        await_condition(said, STEP, || async {
            ensure!(pair.app_secret("ca.crt").await?.matches("BEGIN").count() == authorities, "not yet");
            let leaf = text(pair, "rotated-a-tls", "tls.crt").await?;
            ensure!((leaf != old_leaf) == (said != "both are trusted"), "the certificate is another one");
            Ok(())
        })
        .await?;
        pair.paired_now(1).await?;
        await_agents(pair).await?;
        shorten(pair, &kept).await?;
    }
    ensure!(!pair.app_secret("ca.crt").await?.contains(old_ca.trim()), "the old authority is trusted still");
    await_condition("postgres shows a certificate of the new one", MINUTE, || async {
        verifies(pair, primary, &pair.app_secret("ca.crt").await?).await?;
        ensure!(
            verifies(pair, primary, &old_ca).await.is_err(),
            "postgres shows a certificate of the old one"
        );
        Ok(())
    })
    .await?;
    pair.psql(primary, "CREATE TABLE after_rotation (n int)").await?;
    pair.await_equal("SELECT count(*) FROM after_rotation", MINUTE).await?;
    ensure!(starts(pair).await? == before, "postgres was restarted");
    Ok(())
}

/// Waits until the kubelets have brought the Secrets as they are now: the hour that is cut short is for that.
async fn await_agents(pair: &Pair) -> anyhow::Result<()> {
    for instance in InstanceId::ALL {
        for key in ["ca.crt", "tls.crt", "server.crt"] {
            let wanted = text(pair, &pair.names.tls_secret(instance), key).await?;
            await_condition("the pod has its Secret", STEP, || async {
                let mounted = pair.shell(instance, &format!("cat /pgpair/tls/{key}")).await?;
                ensure!(mounted.trim() == wanted.trim(), "{instance} has an older {key}");
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// An hour has passed since the Secrets were changed, as far as the operator can tell.
async fn shorten(pair: &Pair, kept: &Kept) -> anyhow::Result<()> {
    let (names, beside) = (&pair.names, secrets(pair));
    let of_instances = InstanceId::ALL.map(|instance| names.tls_secret(instance));
    let with_pair = of_instances.into_iter().chain([names.app_secret()]).map(|name| (&beside, name));
    for (api, secret) in with_pair.chain([(&kept.secrets, kept.operator_tls.clone())]) {
        let annotations = json!({"pgpair.dev/changed-at": "2020-01-01T00:00:00Z"});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let patched = api.patch(&secret, &PatchParams::default(), &patch).await;
        patched.with_context(|| format!("shortening the wait of {secret}"))?;
    }
    Ok(())
}

/// What an earlier version of the operator kept beside the pair goes to the operator's namespace: no certificate of an instance changes, the
/// operator gives orders after that, and no key of the authority or of the operator is left beside the pair.
pub async fn the_keys_of_an_earlier_version_leave_the_pairs_namespace(
    c: &mut Context,
) -> anyhow::Result<Outcome> {
    let (pair, _) = pair(c, "moved").await?;
    let kept = Kept::of(&pair).await?;
    let absent = operator::take_away(&pair.cluster).await?;
    let put_back = put_back(&pair, &kept).await;
    // Others need it, whatever came of that.
    absent.bring_back(&pair.cluster).await?;
    let walked = match put_back {
        Ok(key) => moves(&pair, &kept, &key).await,
        Err(error) => Err(error),
    };
    pair.explain(walked).await?;
    Ok(Outcome::Passed)
}

/// Puts the operator's Secrets of the pair where earlier versions had them; gives the key of the authority.
async fn put_back(pair: &Pair, kept: &Kept) -> anyhow::Result<ByteString> {
    let owner = json!([{
        "apiVersion": "pgpair.dev/v1alpha1", "kind": "PgReplicaPair", "name": pair.names.name, "uid": pair.uid().await?,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut key = None;
    let former = [
        (&kept.authority, pair.names.former_authority_secret()),
        (&kept.operator_tls, pair.names.former_operator_tls_secret()),
    ];
    for (name, former) in former {
        let secret = kept.secrets.get(name).await.with_context(|| format!("reading {name}"))?;
        let metadata = json!({
            "name": former, "labels": pair.names.labels(), "ownerReferences": owner,
            "annotations": secret.metadata.annotations,
        });
        let beside: Secret =
            serde_json::from_value(json!({"metadata": metadata, "type": "Opaque", "data": secret.data}))?;
        key = key.or_else(|| secret.data.and_then(|mut data| data.remove("ca.key")));
        let created = secrets(pair).create(&PostParams::default(), &beside).await;
        created.with_context(|| format!("creating {former}"))?;
        kept.secrets
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting {name}"))?;
    }
    key.context("the authority has no key")
}

async fn moves(pair: &Pair, kept: &Kept, key: &ByteString) -> anyhow::Result<()> {
    let leaves = || async {
        anyhow::Ok((text(pair, "moved-a-tls", "tls.crt").await?, text(pair, "moved-b-tls", "tls.crt").await?))
    };
    let before = leaves().await?;
    await_condition("the keys are with the operator", MINUTE, || async {
        let moved = kept.secrets.get(&kept.authority).await?;
        ensure!(
            moved.data.as_ref().and_then(|data| data.get("ca.key")) == Some(key),
            "it is another authority"
        );
        for former in [pair.names.former_authority_secret(), pair.names.former_operator_tls_secret()] {
            ensure!(secrets(pair).get_opt(&former).await?.is_none(), "{former} is there still");
        }
        Ok(())
    })
    .await?;
    for secret in secrets(pair).list(&ListParams::default()).await? {
        let data = secret.data.unwrap_or_default();
        ensure!(data.values().all(|value| value != key), "the key is in {:?}", secret.metadata.name);
    }
    ensure!(leaves().await? == before, "an instance has another certificate");
    // The agents take the operator's new certificate.
    pair.order(&json!({"kind": "Switchover"})).await?;
    pair.await_paired(2, BRING_UP).await.map(|_| ())
}
