//! Passwords as PostgreSQL stores them: SCRAM-SHA-256 (RFC 5802, RFC 7677), written as RFC 5803 says.
//!
//! The operator reads the password in its Secret and makes a [`Verifier`] of it, which is all that reaches the pod of an instance and the
//! server. A [`ClientKey`] proves a login with that password, and is good for nothing else: it does not tell the password, and a new
//! verifier has another key.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

const SCHEME: &str = "SCRAM-SHA-256$";
/// PostgreSQL's own default is 4096. More would only cost time here.
const MOST_ITERATIONS: u32 = 1 << 20;
/// Characters of a [`Verifier::mark`].
const MARK: usize = 16;
type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// What PostgreSQL stores of a password: who has it can check the password, and cannot log in with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verifier {
    text: String,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    stored_key: Key,
    server_key: Key,
}

/// A text that is no verifier of SCRAM-SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no SCRAM-SHA-256 verifier, which is SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")]
pub struct NoVerifier;

impl Verifier {
    /// One of this password, with a salt of its own.
    ///
    /// # Errors
    /// The library made something else than a verifier.
    pub fn make(password: &str) -> Result<Verifier, NoVerifier> {
        postgres_protocol::password::scram_sha_256(password.as_bytes()).try_into()
    }

    /// As the server stores it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Tells it from every other verifier, and gives nothing of it away.
    #[must_use]
    pub fn mark(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.text.as_bytes());
        digest.as_ref().iter().take(MARK / 2).map(|b| format!("{b:02x}")).collect()
    }

    /// Whether it is of this password.
    #[must_use]
    pub fn is_of(&self, password: &str) -> bool {
        self.accepts(&self.client_key(password))
    }

    /// The key by which a client with this password logs in.
    #[must_use]
    pub fn client_key(&self, password: &str) -> ClientKey {
        // As PostgreSQL and its clients do: what SASLprep (RFC 4013) forbids is taken as it is.
        let prepared = stringprep::saslprep(password).unwrap_or(password.into());
        let mut salted = Key::default();
        let bytes = prepared.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, self.iterations, &self.salt, bytes, &mut salted);
        ClientKey(sign(&salted, b"Client Key"))
    }

    /// Whether a client with this key is let in.
    #[must_use]
    pub fn accepts(&self, key: &ClientKey) -> bool {
        digest::digest(&digest::SHA256, &key.0).as_ref() == self.stored_key
    }

    /// The proof of a client with `key` for an exchange of these messages.
    #[must_use]
    pub fn client_proof(&self, key: &ClientKey, exchange: &str) -> String {
        let mut proof = sign(&self.stored_key, exchange.as_bytes());
        proof.iter_mut().zip(key.0).for_each(|(signature, key)| *signature ^= key);
        BASE64_STANDARD.encode(proof)
    }

    /// What the server proves itself with in an exchange of these messages.
    #[must_use]
    pub fn server_signature(&self, exchange: &str) -> String {
        BASE64_STANDARD.encode(sign(&self.server_key, exchange.as_bytes()))
    }
}

fn sign(key: &Key, text: &[u8]) -> Key {
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = Key::default();
    out.copy_from_slice(signature.as_ref());
    out
}

impl TryFrom<String> for Verifier {
    type Error = NoVerifier;

    fn try_from(text: String) -> Result<Verifier, NoVerifier> {
        let parts = || {
            let (parameters, keys) = text.strip_prefix(SCHEME)?.split_once('$')?;
            let ((iterations, salt), (stored, server)) = (parameters.split_once(':')?, keys.split_once(':')?);
            let iterations = iterations.parse().ok().filter(|n: &NonZeroU32| n.get() <= MOST_ITERATIONS)?;
            let salt = BASE64_STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
            let key = |text: &str| Key::try_from(BASE64_STANDARD.decode(text).ok()?).ok();
            Some((salt, iterations, key(stored)?, key(server)?))
        };
        let (salt, iterations, stored_key, server_key) = parts().ok_or(NoVerifier)?;
        Ok(Verifier { salt, iterations, stored_key, server_key, text })
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> String {
        verifier.text
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.mark())
    }
}

/// What a client derives from its password to log in: as good as the password, for one verifier.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientKey(Key);

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no key of 32 bytes in base64")]
pub struct NoKey;

impl TryFrom<String> for ClientKey {
    type Error = NoKey;

    fn try_from(text: String) -> Result<ClientKey, NoKey> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| NoKey)?;
        Key::try_from(bytes).map(ClientKey).map_err(|_| NoKey)
    }
}

impl From<ClientKey> for String {
    fn from(key: ClientKey) -> String {
        BASE64_STANDARD.encode(key.0)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey")
    }
}

/// The verifiers that a pod mounts, by role: the first passwords of the roles.
pub type Verifiers = BTreeMap<String, Verifier>;
/// Key of Secret `NAME-verifiers`, and name of the file that it becomes: [`Verifiers`] as JSON.
pub const VERIFIERS_KEY: &str = "verifiers.json";

/// The passwords that the operator gives to an agent, by role: `PUT` [`crate::paths::PASSWORDS`]. The keys stay in memory.
pub type GivenPasswords = BTreeMap<String, GivenPassword>;

/// The password of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenPassword {
    /// What the role gets.
    pub verifier: Verifier,
    /// What proves that it lets the role in.
    pub client_key: ClientKey,
}

impl GivenPassword {
    /// Of a role whose verifier is of this password.
    #[must_use]
    pub fn new(verifier: Verifier, password: &str) -> GivenPassword {
        let client_key = verifier.client_key(password);
        GivenPassword { verifier, client_key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3, and what its password is stored as.
    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                          wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const EXCHANGE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    fn stored() -> Verifier {
        STORED.to_owned().try_into().unwrap()
    }

    #[test]
    fn an_exchange_is_that_of_the_rfc() {
        let (verifier, key) = (stored(), stored().client_key("pencil"));
        assert_eq!(verifier.client_proof(&key, EXCHANGE), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(verifier.server_signature(EXCHANGE), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_verifier_is_of_its_password_and_of_no_other() {
        // With a ligature, which SASLprep takes apart, and with a blank that it forbids.
        for password in ["pencil", "o\u{fb03}ce", "a\u{0}b", "ü 5 %"] {
            let verifier = Verifier::make(password).unwrap();
            assert!(verifier.is_of(password), "{password:?}");
            for other in ["", "Pencil", verifier.as_str()] {
                assert!(!verifier.is_of(other), "{other}");
            }
            assert_ne!(verifier.mark(), Verifier::make(password).unwrap().mark(), "a salt of its own");
        }
        assert!(stored().is_of("pencil"));
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        for text in [
            "",
            "md5abc",
            "pencil",
            "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:?$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d:wfPL",
        ] {
            assert_eq!(Verifier::try_from(text.to_owned()), Err(NoVerifier), "{text}");
        }
    }

    #[test]
    fn nothing_of_a_password_is_printed_and_what_travels_is_read_again() {
        let given = GivenPassword::new(stored(), "pencil");
        let shown = format!("{given:?}");
        assert!(!shown.contains("SCRAM") && !shown.contains('='), "{shown}");
        let json = serde_json::to_string(&given).unwrap();
        assert!(json.contains("\"clientKey\"") && !json.contains("pencil"), "{json}");
        assert_eq!(serde_json::from_str::<GivenPassword>(&json).unwrap(), given);
        serde_json::from_str::<GivenPassword>(&json.replace("SCRAM", "scram")).unwrap_err();
    }
}
