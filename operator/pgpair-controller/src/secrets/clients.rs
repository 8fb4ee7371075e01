//! Secrets for clients: `NAME-app` and `NAME-superuser`.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Secret;
use pgpair_api::names::POSTGRES_PORT;
use pgpair_api::validate::ValidatedPair;
use rand::distr::{Alphanumeric, SampleString};

use super::party::ClientRole;
use super::passwords::password_of;
use crate::api::Requests;
use crate::error::Error;

/// Length of generated passwords: 32 of 62 characters are 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// With the authority's certificate where the guide mounts it.
const VERIFIED: &str = "sslmode=verify-full&sslrootcert=/etc/pgpair/ca.crt";

/// One that nobody can guess.
#[must_use]
pub fn generate_password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), PASSWORD_LENGTH)
}

/// The password of a role: of the Secret that the user named, else a new one.
///
/// # Errors
/// That Secret is not there or has no password; a request failed.
pub async fn fetch_password(
    requests: &Requests,
    pair: &ValidatedPair,
    role: ClientRole,
) -> Result<String, Error> {
    let (secret, field) = match role {
        ClientRole::Application => (&pair.owner_secret, "ownerSecret"),
        ClientRole::Superuser => (&pair.superuser_secret, "superuserSecret"),
    };
    let Some(secret) = secret else {
        return Ok(generate_password());
    };
    let found = requests.get::<Secret>(secret).await?;
    let password = found.and_then(|found| password_of(&found, secret));
    password.ok_or_else(|| Error::Password { secret: secret.clone(), field })
}

/// User, password and address, as single words and as connection strings.
#[must_use]
pub fn build_content(
    pair: &ValidatedPair,
    role: ClientRole,
    password: &str,
    ca: String,
) -> Vec<(&'static str, String)> {
    let mut content = build_strings(pair, role, password);
    content.extend([("password", password.to_owned()), ("ca.crt", ca)]);
    content
}

/// All of it but the password alone and the authority.
#[must_use]
pub fn build_strings(pair: &ValidatedPair, role: ClientRole, password: &str) -> Vec<(&'static str, String)> {
    let host = format!("{}.{}.svc", pair.name.rw(), pair.name.namespace);
    let (user, database) = match role {
        ClientRole::Application => (pair.database_owner.as_str(), pair.database.as_str()),
        ClientRole::Superuser => ("postgres", "postgres"),
    };
    let encoded = percent_encoded(password);
    let address = format!("{host}:{POSTGRES_PORT}/{database}");
    let uri = format!("postgresql://{user}:{encoded}@{address}");
    let jdbc = format!("jdbc:postgresql://{address}?user={user}&password={encoded}");
    vec![
        // Without a file of the authority, channel binding is what tells the server from somebody in between (RFC 5802).
        ("uri", format!("{uri}?sslmode=require&channel_binding=require")),
        ("uri-verified", format!("{uri}?{VERIFIED}")),
        ("jdbc-uri", format!("{jdbc}&sslmode=require")),
        ("jdbc-uri-verified", format!("{jdbc}&{VERIFIED}")),
        ("username", user.to_owned()),
        ("user", user.to_owned()),
        ("dbname", database.to_owned()),
        ("host", host),
        ("port", POSTGRES_PORT.to_string()),
    ]
}

/// As RFC 3986 wants it in any part of a URI.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}"); // writing into a String does not fail
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::valid;

    #[test]
    fn a_password_of_the_user_survives_in_the_connection_strings() {
        assert_eq!(percent_encoded("a/b@c:ü%"), "a%2Fb%40c%3A%C3%BC%25");
        let pair = valid(json!({"bootstrap": {"database": "shop", "owner": "clerk"}}));
        let of = |role| {
            let content = build_content(&pair, role, "p@ss", String::new());
            content.into_iter().filter(|(key, _)| key.contains("uri")).map(|(_, v)| v).collect::<Vec<_>>()
        };
        assert_eq!(
            of(ClientRole::Application),
            [
                "postgresql://clerk:p%40ss@orders-rw.shop.svc:5432/shop?sslmode=require&channel_binding=require",
                "postgresql://clerk:p%40ss@orders-rw.shop.svc:5432/shop?sslmode=verify-full&sslrootcert=/etc/pgpair/ca.crt",
                "jdbc:postgresql://orders-rw.shop.svc:5432/shop?user=clerk&password=p%40ss&sslmode=require",
                "jdbc:postgresql://orders-rw.shop.svc:5432/shop?user=clerk&password=p%40ss&sslmode=verify-full&sslrootcert=/etc/pgpair/ca.crt",
            ]
        );
        assert!(of(ClientRole::Superuser)[0].starts_with("postgresql://postgres:p%40ss@"));
    }
}
