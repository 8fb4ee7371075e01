//! Passwords of roles that are given while postgres runs.

use pgpair_agent::postgres::postmaster::passwords::{Reports, Roles, follow};
use pgpair_agent::postgres::sql::proof::{Gate, Proof};
use pgpair_wire::report::PasswordState;
use pgpair_wire::scram::{GivenPassword, GivenPasswords, Verifier};

use crate::clients::with_tls;
use crate::fixture::{Instance, eventually, run};

pub fn password(text: &str) -> GivenPassword {
    GivenPassword::new(Verifier::make(text).unwrap(), text)
}

fn of_shop(password: GivenPassword) -> GivenPasswords {
    GivenPasswords::from([("shop".to_owned(), password)])
}

/// What becomes of it, and why.
async fn give_as(
    i: &Instance,
    gate: &Gate,
    given: &GivenPasswords,
    roles: Roles,
    before: &Reports,
) -> Vec<(PasswordState, String)> {
    let after = follow(&i.sql, gate, given, roles, before).await.unwrap();
    assert!(after.iter().all(|(role, told)| told.mark == given[role].verifier.mark()));
    after.into_values().map(|told| (told.state, told.why.unwrap_or_default())).collect()
}

async fn give(i: &Instance, given: &GivenPasswords) -> (PasswordState, String) {
    let told = give_as(i, &Gate::of(&i.settings), given, Roles::Writable, &Reports::new()).await;
    told.into_iter().next().unwrap()
}

fn in_effect() -> (PasswordState, String) {
    (PasswordState::InEffect, String::new())
}

fn turned_away(i: &Instance, password: &str) {
    let e = with_tls(i, "shop", password).unwrap_err();
    assert!(e.contains("password authentication failed"), "{e}");
}

#[test]
fn a_new_password_lets_the_role_in_and_the_old_one_does_not() {
    run(async |w| {
        w.primary().await;
        with_tls(&w.a, "shop", "s3cret").unwrap();
        let new = of_shop(password("n\u{fb03}3w")); // a ligature, which both sides take apart
        assert_eq!(give(&w.a, &new).await, in_effect());
        with_tls(&w.a, "shop", "n\u{fb03}3w").unwrap();
        turned_away(&w.a, "s3cret");
        assert_eq!(give(&w.a, &new).await, in_effect(), "once more");
        let nobody = GivenPasswords::from([("nobody".to_owned(), password("x"))]);
        let (state, why) = give(&w.a, &nobody).await;
        assert_eq!((state, why.as_str()), (PasswordState::Refused, "there is no role of this name"));
    });
}

#[test]
fn only_the_right_key_opens_the_gate() {
    run(async |w| {
        w.primary().await;
        let gate = Gate::of(&w.a.settings);
        let (new, other) = (password("new"), password("other"));
        assert_eq!(give(&w.a, &of_shop(new.clone())).await, in_effect());
        assert_eq!(gate.prove("shop", &new).await.unwrap(), Proof::LetIn);
        let wrong = "password authentication failed for user \"shop\"".to_owned();
        assert_eq!(gate.prove("shop", &other).await.unwrap(), Proof::TurnedAway(wrong));
        w.a.exec("ALTER ROLE shop CONNECTION LIMIT 0").await;
        assert_eq!(gate.prove("shop", &new).await.unwrap(), Proof::LetIn, "another time it is");
        w.a.exec("ALTER ROLE shop NOLOGIN").await;
        let locked = "role \"shop\" is not permitted to log in".to_owned();
        assert_eq!(gate.prove("shop", &new).await.unwrap(), Proof::TurnedAway(locked));
    });
}

#[test]
fn a_password_that_cannot_be_proven_is_not_kept() {
    run(async |w| {
        w.primary().await;
        let new = of_shop(password("new"));
        for (lock, open, word) in [
            ("NOLOGIN", "LOGIN", "not permitted to log in"),
            ("VALID UNTIL '2001-01-01'", "VALID UNTIL 'infinity'", "valid until 2001"),
        ] {
            w.a.exec(&format!("ALTER ROLE shop {lock}")).await;
            let (state, why) = give(&w.a, &new).await;
            assert!(state == PasswordState::Refused && why.contains(word), "{why}");
            w.a.exec(&format!("ALTER ROLE shop {open}")).await;
            with_tls(&w.a, "shop", "s3cret").unwrap();
        }
        // Nobody answers the login: the role has the new password for a moment, and then the old one again.
        let mut elsewhere = w.a.settings.clone();
        elsewhere.pg_port = 1;
        let told = give_as(&w.a, &Gate::of(&elsewhere), &new, Roles::Writable, &Reports::new()).await;
        assert!(told[0].0 == PasswordState::Refused && told[0].1.contains("is not known"), "{told:?}");
        with_tls(&w.a, "shop", "s3cret").unwrap();
        let mut swapped = password("new");
        swapped.client_key = password("other").client_key;
        let (state, why) = give(&w.a, &of_shop(swapped)).await;
        assert!(state == PasswordState::Refused && why.contains("not of that password"), "{why}");
        with_tls(&w.a, "shop", "s3cret").unwrap();
        assert_eq!(give(&w.a, &new).await, in_effect(), "what stood in the way is gone");
        turned_away(&w.a, "s3cret");
    });
}

#[test]
fn a_password_that_was_changed_in_the_database_stays_and_is_told_until_the_secret_is_changed() {
    run(async |w| {
        w.primary().await;
        let first = of_shop(password("first"));
        assert_eq!(give(&w.a, &first).await, in_effect());
        w.a.exec("ALTER ROLE shop PASSWORD 'by hand'").await;
        assert_eq!(give(&w.a, &first).await.0, PasswordState::Differs);
        with_tls(&w.a, "shop", "'by hand'").unwrap();
        w.a.exec("ALTER ROLE shop PASSWORD NULL").await;
        assert_eq!(give(&w.a, &first).await.0, PasswordState::Differs);
        assert_eq!(give(&w.a, &of_shop(password("second"))).await, in_effect());
        with_tls(&w.a, "shop", "second").unwrap();
        // A role that is made anew has never had it.
        w.a.exec("ALTER DATABASE shop OWNER TO postgres; DROP ROLE shop; CREATE ROLE shop LOGIN").await;
        assert_eq!(give(&w.a, &first).await, in_effect());
    });
}

#[test]
fn a_standby_waits_for_its_primary() {
    run(async |w| {
        let (_a, _b) = w.pair().await;
        let new = of_shop(password("new"));
        let gate = Gate::of(&w.b.settings);
        let at_b = async || give_as(&w.b, &gate, &new, Roles::Replicated, &Reports::new()).await[0].0;
        assert_eq!(at_b().await, PasswordState::Awaited);
        assert_eq!(give(&w.a, &new).await, in_effect());
        eventually("the standby has it", async || (at_b().await == PasswordState::InEffect).then_some(()))
            .await;
        w.a.exec("ALTER ROLE shop PASSWORD 'by hand'").await;
        eventually("the standby knows", async || (at_b().await == PasswordState::Differs).then_some(()))
            .await;
    });
}
