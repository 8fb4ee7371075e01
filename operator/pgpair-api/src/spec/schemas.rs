//! Schemas that the derive cannot make: bounded lists and maps, so that the API server can cost the rules.

use pgpair_wire::parameters::{WAL_LEVELS, names, prefixes};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::json;
use strum::VariantNames;

use crate::names::OUR_ROLES;

/// A quantity of bytes: no exponents and no thousandths, so that it reads the same everywhere.
pub const BYTES: &str = r"^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$";

/// The name of an object: a DNS subdomain (RFC 1123), so that it means itself in a path.
pub const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// One of the words of an enumeration.
pub fn words<T: VariantNames>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": T::VARIANTS })
}

/// `spec.postgres.parameters`.
pub fn parameters(_: &mut SchemaGenerator) -> Schema {
    let list = |names: &[&str]| names.iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(",");
    let (refused, prefixes) = (names().collect::<Vec<_>>(), prefixes().collect::<Vec<_>>());
    json_schema!({
        "type": "object",
        "maxProperties": 128,
        // Names are compared in lower case by PostgreSQL: the first rule leaves only lower case for the second.
        "additionalProperties": { "type": "string", "maxLength": 2048, "pattern": r"^[^\n\r\x00]*$" },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(k, k.matches('^[a-z_][a-z0-9_]{0,62}([.][a-z_][a-z0-9_]{0,62})?$'))",
                "message": "names of settings are written in lower case, such as work_mem or pg_stat_statements.max",
            },
            {
                "rule": format!(
                    "self.all(k, !(k in [{}]) && ![{}].exists(p, k.startsWith(p)))",
                    list(&refused), list(&prefixes)
                ),
                "message": format!(
                    "one of these settings belongs to the operator, endangers the data, is for roles and databases (ALTER ROLE ... SET) or has no use in a container, and must be removed from spec.postgres.parameters: {}, and all that begin with {}",
                    refused.join(" "), prefixes.join(" ")
                ),
            },
            {
                "rule": format!("!('wal_level' in self) || self['wal_level'] in [{}]", list(WAL_LEVELS)),
                "message": "wal_level must be replica, or logical for logical replication: write one of the two, or leave it out",
            },
            {
                "rule": "!('max_connections' in self) || (self['max_connections'].matches('^[0-9]{1,6}$') && int(self['max_connections']) >= 20)",
                "message": "max_connections must be a number of at least 20: some connections are kept for the pair itself",
            },
        ],
    })
}

/// A line whose third word names one of our roles, perhaps among others or in quotes.
fn our_roles() -> String {
    let roles = OUR_ROLES.join("|");
    format!(r#"^[a-z]+[ \t]+[^ \t]+[ \t]+([^ \t]*,)?"?({roles})"?(,[^ \t]*)?[ \t]"#)
}

/// `spec.postgres.hba`: a line that postgres does not understand would keep it from starting. A backslash at the end would
/// join it with the next one.
pub fn hba(_: &mut SchemaGenerator) -> Schema {
    let word = r#"[ \t]+([^ \t\n\r\x00"]|"[^\n\r\x00"]*")+"#;
    let kind = "(host|hostssl|hostgssenc|hostnossl|hostnogssenc)";
    let method =
        "(trust|reject|scram-sha-256|md5|password|gss|sspi|ident|peer|pam|ldap|radius|cert|bsd|oauth)";
    let pattern = format!(r"^{kind}({word}){{3,4}}[ \t]+{method}([ \t]([^\n\r\x00]*[^\n\r\x00\\])?)?$");
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 512, "pattern": pattern },
        "x-kubernetes-validations": [{
            "rule": format!("self.all(line, !line.matches('{}'))", our_roles()),
            "message": "spec.postgres.hba has a line for postgres, pgpair_agent or pgpair_replication: remove it. How these come in is the operator's; spec.bootstrap.superuserAccess lets postgres in by its password",
        }],
    })
}

/// `spec.bootstrap.postInitSQL`.
pub fn statements(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 8192, "pattern": r"^[^\x00]*$" },
    })
}

/// `spec.roles[].memberOf`.
pub fn role_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z_][a-z0-9_]*$" },
    })
}

/// `spec.databases[].extensions`.
pub fn extensions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "set",
        "items": { "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?$" },
    })
}

/// `spec.tls.dnsNames`.
pub fn dns_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "string", "minLength": 1, "maxLength": 253,
            "pattern": r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        },
    })
}

/// Requests and limits.
pub fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": { "type": "string", "maxLength": 32, "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE])?$" },
    })
}

/// Labels, annotations, node selectors.
pub fn metadata(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
    })
}

/// `spec.networkPolicy.allowFrom`: peers as in a NetworkPolicy, by labels only.
pub fn peers(_: &mut SchemaGenerator) -> Schema {
    let label = json!({ "type": "string", "maxLength": 63 });
    let selector = json!({
        "type": "object",
        "properties": {
            "matchLabels": { "type": "object", "maxProperties": 16, "additionalProperties": label },
        },
    });
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {
            "type": "object",
            "minProperties": 1,
            "properties": { "podSelector": selector.clone(), "namespaceSelector": selector },
        },
    })
}

/// `spec.scheduling.tolerations`, as in a pod.
pub fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string", "maxLength": 317 },
                "operator": { "type": "string", "enum": ["Exists", "Equal"] },
                "value": { "type": "string", "maxLength": 63 },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.operator) && self.operator == 'Exists' ? !has(self.value) || self.value == '' : has(self.key) && self.key != ''",
                    "message": "a toleration with operator Exists has no value, and one without needs a key: remove the value or name the key",
                },
                {
                    "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                    "message": "tolerationSeconds needs the effect NoExecute: set the effect or remove tolerationSeconds",
                },
            ],
        },
    })
}

/// `spec.scheduling.nodeAffinity`, as in a pod.
pub fn node_affinity(_: &mut SchemaGenerator) -> Schema {
    let requirement = json!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": { "type": "string", "minLength": 1, "maxLength": 317 },
            "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] },
            "values": { "type": "array", "maxItems": 64, "items": { "type": "string", "maxLength": 63 } },
        },
        "x-kubernetes-validations": [{
            "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : self.operator in ['Gt', 'Lt'] ? has(self.values) && size(self.values) == 1 : !has(self.values) || size(self.values) == 0",
            "message": "the operators In and NotIn need values, Gt and Lt one value, Exists and DoesNotExist none",
        }],
    });
    let requirements = json!({ "type": "array", "maxItems": 16, "items": requirement });
    let term = json!({
        "type": "object",
        "properties": { "matchExpressions": requirements, "matchFields": requirements },
    });
    json_schema!({
        "type": "object",
        "properties": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "type": "object",
                "required": ["nodeSelectorTerms"],
                "properties": { "nodeSelectorTerms": { "type": "array", "minItems": 1, "maxItems": 16, "items": term } },
            },
            "preferredDuringSchedulingIgnoredDuringExecution": {
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["weight", "preference"],
                    "properties": {
                        "weight": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 100 },
                        "preference": term,
                    },
                },
            },
        },
    })
}
