//! Every name, label and annotation of the objects of a pair, in one place.

use std::collections::BTreeMap;

use pgpair_core::ids::InstanceId;
use pgpair_wire::names::{AGENT_ROLE, REPLICATION_ROLE, SUPERUSER};

/// API group.
pub const GROUP: &str = "pgpair.dev";
/// Field manager of the operator's server-side apply.
pub const FIELD_MANAGER: &str = "pgreplicapair";
/// Name of the operator: its Lease, and the reporter of its Events.
pub const OPERATOR: &str = "pgreplicapair-operator";
/// Label with the name of the pair, on everything.
pub const LABEL_PAIR: &str = "pgpair.dev/pair";
/// Label with `a` or `b`, on what belongs to one instance.
pub const LABEL_INSTANCE: &str = "pgpair.dev/instance";
/// Label that tells instance pods from seeding pods.
pub const LABEL_COMPONENT: &str = "pgpair.dev/component";
/// Value of [`LABEL_COMPONENT`] for pods that run an instance.
pub const COMPONENT_INSTANCE: &str = "instance";
/// Value of [`LABEL_COMPONENT`] for pods that seed an instance.
pub const COMPONENT_SEED: &str = "instance-seed";
/// Value of [`LABEL_COMPONENT`] for the Lease of an installation of the operator.
pub const COMPONENT_OPERATOR: &str = "operator";
/// Annotation of that Lease: the class of the pairs that the installation looks after; empty: those without a class.
pub const ANNOTATION_CLASS: &str = "pgpair.dev/operator-class";
/// Annotation of that Lease: the namespaces that it looks after, with commas; empty: all.
pub const ANNOTATION_NAMESPACES: &str = "pgpair.dev/watch-namespaces";
/// Annotation of that Lease: whether the installation claims these pairs.
pub const ANNOTATION_CLAIMS: &str = "pgpair.dev/claims";
/// Label of a Secret in the operator's own namespace: the uid of the pair that it belongs to.
pub const LABEL_OF_UID: &str = "pgpair.dev/of-uid";
/// Label of such a Secret: the namespace of the pair.
pub const LABEL_OF_NAMESPACE: &str = "pgpair.dev/of-namespace";
/// Label of such a Secret: the name of the pair.
pub const LABEL_OF_PAIR: &str = "pgpair.dev/of-pair";
/// Label of Kubernetes that names the program that manages an object.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// On what is applied: a digest of its content, by which another leader knows what need not be applied again.
pub const ANNOTATION_APPLIED: &str = "pgpair.dev/applied";
/// Annotation of a StatefulSet at 0 replicas: number of the seeding Job that it waits for.
pub const ANNOTATION_SEED: &str = "pgpair.dev/seed";
/// Annotation of a StatefulSet: seeding Jobs that failed in a row.
pub const ANNOTATION_SEED_FAILURES: &str = "pgpair.dev/seed-failures";
/// Annotation of a pair: the order of a person, see [`crate::order::UserOrder`].
pub const ANNOTATION_ORDER: &str = "pgpair.dev/order";
/// Annotation of the Secret of the authority: the authority that signs; empty: its key is lost.
pub const ANNOTATION_CA_SIGNING: &str = "pgpair.dev/ca-signing";
/// Annotation of the Secret of the authority: the authority that will sign next; empty: none.
pub const ANNOTATION_CA_NEXT: &str = "pgpair.dev/ca-next";
/// Annotation of the Secret of the authority: authorities that sign no more, and are trusted until nobody uses what they signed.
pub const ANNOTATION_CA_OLD: &str = "pgpair.dev/ca-old";
/// Annotation of a Secret with a certificate: the end of its validity (RFC 3339).
pub const ANNOTATION_NOT_AFTER: &str = "pgpair.dev/not-after";
/// Annotation of a Secret with a certificate: the authority that signed it.
pub const ANNOTATION_SIGNED_BY: &str = "pgpair.dev/signed-by";
/// Annotation of a Secret with `ca.crt`: the authorities in it.
pub const ANNOTATION_TRUSTS: &str = "pgpair.dev/trusts";
/// Annotation of a Secret with a certificate: a digest of the names in it.
pub const ANNOTATION_DNS_NAMES: &str = "pgpair.dev/dns-names";
/// Annotation of a Secret with certificates: when the operator last changed its content (RFC 3339).
pub const ANNOTATION_CHANGED_AT: &str = "pgpair.dev/changed-at";
/// Annotation of a Secret with certificates: the certificate of a person that postgres shows. Absent: it shows the pair's own.
pub const ANNOTATION_SERVER_SHOWS: &str = "pgpair.dev/server-certificate";
/// Annotation of a Secret with certificates: the Secret that the person's certificate is from.
pub const ANNOTATION_SERVER_FROM: &str = "pgpair.dev/server-certificate-from";
/// Annotation of a Secret with certificates: the authorities of servers that it trusts beside the pair's own.
pub const ANNOTATION_SERVER_TRUSTS: &str = "pgpair.dev/server-trusts";
/// Annotation of the Secret of an instance: which version of its content it is. Absent: the pair uses none.
pub const ANNOTATION_VERSION: &str = "pgpair.dev/version";
/// Annotation of a Secret with certificates: which revocation lists it has. Absent: nothing was ever revoked.
pub const ANNOTATION_REVOKED: &str = "pgpair.dev/revoked";
/// Annotation of the Secret of the authority: the order to revoke that was carried out last.
pub const ANNOTATION_REVOKED_BY: &str = "pgpair.dev/revoked-by";
/// Annotation of the Secret of the authority: when the first of its revocation lists is outdated.
pub const ANNOTATION_REVOKED_UNTIL: &str = "pgpair.dev/revoked-until";
/// Annotation of a Secret with certificates: the certificate that was made anew so that the one before it can be revoked.
pub const ANNOTATION_REISSUED: &str = "pgpair.dev/reissued";
/// Annotation of Secret `NAME-verifiers`: which Secrets with passwords were read, and what was found there.
pub const ANNOTATION_PASSWORDS: &str = "pgpair.dev/passwords";
/// Annotation of a Secret with a password: the id of the order, or the word of the operator, for which its password was made last.
pub const ANNOTATION_ROTATED_BY: &str = "pgpair.dev/rotated-by";
/// Roles that are not for a person to let in.
pub const OUR_ROLES: [&str; 3] = [SUPERUSER, AGENT_ROLE, REPLICATION_ROLE];

/// Port of PostgreSQL.
pub const POSTGRES_PORT: i32 = 5432;

/// What a Job of an adoption does with the volumes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdoptStep {
    /// Looks at them, and changes nothing.
    Look,
    /// Lets them take another record for theirs.
    Release,
}

impl AdoptStep {
    /// Both, in their order.
    pub const ALL: [AdoptStep; 2] = [AdoptStep::Look, AdoptStep::Release];

    /// Part of the name of its Job, and of the command.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AdoptStep::Look => "look",
            AdoptStep::Release => "release",
        }
    }
}

/// Name and namespace of a pair; gives the names of everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl PairName {
    /// The record's Lease.
    #[must_use]
    pub fn lease(&self) -> &str {
        &self.name
    }
    /// StatefulSet of an instance; also the instance's name in status and certificates.
    #[must_use]
    pub fn instance(&self, i: InstanceId) -> String {
        format!("{}-{i}", self.name)
    }
    /// Pod of an instance.
    #[must_use]
    pub fn pod(&self, i: InstanceId) -> String {
        format!("{}-{i}-0", self.name)
    }
    /// Headless Service of the pods.
    #[must_use]
    pub fn pods_service(&self) -> String {
        format!("{}-pods", self.name)
    }
    /// Name of an instance's pod as the other pod of its namespace looks it up: found with the first search domain, so by
    /// one query, where [`PairName::pod_dns`] takes three.
    #[must_use]
    pub fn pod_short_dns(&self, i: InstanceId) -> String {
        format!("{}.{}", self.pod(i), self.pods_service())
    }
    /// DNS name of an instance's pod.
    #[must_use]
    pub fn pod_dns(&self, i: InstanceId) -> String {
        format!("{}.{}.{}.svc", self.pod(i), self.pods_service(), self.namespace)
    }
    /// Service (and EndpointSlice) of the primary.
    #[must_use]
    pub fn rw(&self) -> String {
        format!("{}-rw", self.name)
    }
    /// Service (and EndpointSlice) for reading.
    #[must_use]
    pub fn ro(&self) -> String {
        format!("{}-ro", self.name)
    }
    /// Service of any ready instance.
    #[must_use]
    pub fn any(&self) -> String {
        format!("{}-r", self.name)
    }
    /// ServiceAccount, Role and RoleBinding of the agents.
    #[must_use]
    pub fn agent(&self) -> String {
        format!("{}-agent", self.name)
    }
    /// Secret of the pair's certificate authority, in the operator's own namespace; read by the operator only. The uid makes the name
    /// unique over all namespaces, and over pairs of one name that follow each other. It is shorter than the 253 characters of a name: 161 at most.
    #[must_use]
    pub fn authority_secret(&self, uid: &str) -> String {
        format!("pgpair-{}-{}-{uid}-ca", self.namespace, self.name)
    }
    /// Where earlier versions kept the authority: in the pair's namespace.
    #[must_use]
    pub fn former_authority_secret(&self) -> String {
        format!("{}-ca", self.name)
    }
    /// Secret with the certificates of an instance.
    #[must_use]
    pub fn tls_secret(&self, i: InstanceId) -> String {
        format!("{}-{i}-tls", self.name)
    }
    /// Secret with the client certificate by which the operator talks to the agents, in the operator's own namespace.
    #[must_use]
    pub fn operator_tls_secret(&self, uid: &str) -> String {
        format!("pgpair-{}-{}-{uid}-operator-tls", self.namespace, self.name)
    }
    /// Where earlier versions kept that certificate: in the pair's namespace.
    #[must_use]
    pub fn former_operator_tls_secret(&self) -> String {
        format!("{}-operator-tls", self.name)
    }
    /// Secret with user, password and address for applications.
    #[must_use]
    pub fn app_secret(&self) -> String {
        format!("{}-app", self.name)
    }
    /// Secret with the superuser's password.
    #[must_use]
    pub fn superuser_secret(&self) -> String {
        format!("{}-superuser", self.name)
    }
    /// Secret with the verifiers of the passwords: what of them the pods of the instances get.
    #[must_use]
    pub fn verifiers_secret(&self) -> String {
        format!("{}-verifiers", self.name)
    }
    /// Secret with the client certificate of a role of the spec. No other name of a pair has a dot, so that no pair's name gives it to something
    /// else; names of roles have no hyphen, so that no two share one.
    #[must_use]
    pub fn role_secret(&self, role: &str) -> String {
        format!("{}.role-{}-tls", self.name, role.replace('_', "-"))
    }
    /// Whether that is the name of such a Secret.
    #[must_use]
    pub fn gives_role_secret(&self, object: &str) -> bool {
        let role = object
            .strip_prefix(&self.name)
            .and_then(|rest| rest.strip_prefix(".role-")?.strip_suffix("-tls"));
        role.is_some_and(|role| !role.is_empty())
    }
    /// ConfigMap with the settings that the agents follow.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}-config", self.name)
    }
    /// PodDisruptionBudget of the instances.
    #[must_use]
    pub fn budget(&self) -> String {
        format!("{}-instances", self.name)
    }
    /// NetworkPolicy of the pods.
    #[must_use]
    pub fn network(&self) -> String {
        format!("{}-instances", self.name)
    }
    /// Claim of the data volume.
    #[must_use]
    pub fn data_claim(&self, i: InstanceId) -> String {
        format!("data-{}", self.pod(i))
    }
    /// Claim of the archive volume.
    #[must_use]
    pub fn archive_claim(&self, i: InstanceId) -> String {
        format!("archive-{}", self.pod(i))
    }
    /// The seeding Job number `n` of an instance.
    #[must_use]
    pub fn seed_job(&self, i: InstanceId, n: u32) -> String {
        format!("{}{n}", self.seed_job_stem(i))
    }
    /// How the names of the seeding Jobs of an instance begin; their numbers follow.
    #[must_use]
    pub fn seed_job_stem(&self, i: InstanceId) -> String {
        format!("{}-{i}-seed-", self.name)
    }
    /// The Job of an adoption that looks at the volumes of an instance, or lets go of them.
    #[must_use]
    pub fn adopt_job(&self, i: InstanceId, step: AdoptStep) -> String {
        format!("{}-{i}-adopt-{}", self.name, step.as_str())
    }
    /// Whether the pair gives this name to one of its objects, Secrets aside, or the name of a Job's pod follows from it.
    #[must_use]
    pub fn gives(&self, object: &str) -> bool {
        let fixed = [
            self.pods_service(),
            self.rw(),
            self.ro(),
            self.any(),
            self.agent(),
            self.config(),
            self.budget(),
        ];
        let of_instance = |i: InstanceId| {
            let seeds = object.strip_prefix(&self.seed_job_stem(i));
            let is_of_job = |job: String| {
                object.strip_prefix(&job).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            };
            [self.instance(i), self.pod(i), self.data_claim(i), self.archive_claim(i)]
                .iter()
                .any(|name| name == object)
                || seeds.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                || AdoptStep::ALL.into_iter().any(|step| is_of_job(self.adopt_job(i, step)))
        };
        object == self.lease()
            || fixed.iter().any(|name| name == object)
            || InstanceId::ALL.into_iter().any(of_instance)
    }
    /// Labels of everything that belongs to the pair.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "pgreplicapair"),
            (LABEL_MANAGED_BY, OPERATOR),
            ("app.kubernetes.io/instance", &self.name),
            (LABEL_PAIR, &self.name),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }
    /// Labels of what belongs to one instance.
    #[must_use]
    pub fn instance_labels(&self, i: InstanceId) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(LABEL_INSTANCE.into(), i.to_string());
        labels
    }
    /// Labels of what the operator keeps of the pair in its own namespace. Not that of [`PairName::labels`], by which the objects in the
    /// pair's namespace are watched.
    #[must_use]
    pub fn labels_with_operator(&self, uid: &str) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "pgreplicapair"),
            (LABEL_MANAGED_BY, OPERATOR),
            (LABEL_OF_NAMESPACE, &self.namespace),
            (LABEL_OF_PAIR, &self.name),
            (LABEL_OF_UID, uid),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    }
    /// The Secrets in the pair's namespace that the operator makes, or that an earlier version of it has made there.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let of_instances = InstanceId::ALL.into_iter().map(|i| self.tls_secret(i));
        let others = [
            self.former_authority_secret(),
            self.former_operator_tls_secret(),
            self.server_tls_secret(),
            self.app_secret(),
            self.superuser_secret(),
            self.verifiers_secret(),
        ];
        of_instances.chain(others).collect()
    }
    /// cert-manager's `Certificate` for postgres.
    #[must_use]
    pub fn server_certificate(&self) -> String {
        format!("{}-server", self.name)
    }
    /// Secret with the certificate that cert-manager makes for postgres.
    #[must_use]
    pub fn server_tls_secret(&self) -> String {
        format!("{}-server-tls", self.name)
    }
    /// The names without which a certificate cannot be what both instances show: a standby finds its primary by the first two, and
    /// the connection strings of Secret `NAME-app` have the third.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let mut names: Vec<String> = InstanceId::ALL.into_iter().map(|i| self.pod_short_dns(i)).collect();
        names.push(format!("{}.{}.svc", self.rw(), self.namespace));
        names
    }
    /// DNS names in the certificate of an instance.
    #[must_use]
    pub fn certificate_names(&self, i: InstanceId) -> Vec<String> {
        let dns = self.pod_dns(i);
        let mut out = vec![
            dns.clone(),
            format!("{dns}.cluster.local"),
            format!("{}.{}", self.pod(i), self.pods_service()),
            "localhost".to_owned(),
        ];
        for service in [self.rw(), self.ro(), self.any()] {
            let ns = &self.namespace;
            out.extend([
                format!("{service}.{ns}"),
                format!("{service}.{ns}.svc"),
                format!("{service}.{ns}.svc.cluster.local"),
                service,
            ]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_the_operator_keeps_of_two_pairs_never_has_the_same_name_and_fits() {
        let pair = |namespace: &str, name: &str| PairName { namespace: namespace.into(), name: name.into() };
        // Each uid is given once. The rest of these names is the same without it.
        let pairs = [
            (pair("shop-a", "b"), "u1"),
            (pair("shop", "a-b"), "u2"),
            (pair("shop", "a-b"), "u3"),
            (pair("bank", "orders"), "u4"),
            (pair("shop", "orders"), "u5"),
        ];
        let names = pairs.iter().flat_map(|(p, uid)| [p.authority_secret(uid), p.operator_tls_secret(uid)]);
        assert_eq!(names.collect::<BTreeSet<_>>().len(), 2 * pairs.len());
        let longest = pair(&"n".repeat(63), &"p".repeat(40));
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        assert!(longest.operator_tls_secret(uid).len() <= 253);
        assert!(longest.labels_with_operator(uid).values().all(|value| value.len() <= 63));
        assert!(!longest.labels_with_operator(uid).contains_key(LABEL_PAIR));
    }
}
