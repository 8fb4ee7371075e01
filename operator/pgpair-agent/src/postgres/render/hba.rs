//! Text of `pg_hba.conf`. A line that postgres does not understand keeps it from starting, so lines are checked before.

use std::fmt::Write as _;
use std::net::IpAddr;

use pgpair_wire::config::{ClientTls, PairConfig};
use pgpair_wire::names::{AGENT_ROLE, REPLICATION_ROLE, SUPERUSER};

use super::{PROOF_DATABASE, RenderError};

const METHODS: &[&str] = &[
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "pam",
    "ldap",
    "radius",
    "cert",
    "bsd",
    "oauth",
];

/// Whether clients are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAccess {
    /// Only the agent and the standby.
    Closed,
    /// Everybody that `pg_hba.conf` names.
    Open,
}

/// `pg_hba.conf`: ourselves over the socket, replication by certificate, and clients as `clients` says. The superuser comes over the
/// network only if that is asked for.
///
/// # Errors
/// A line of the user is none.
pub fn hba_conf(config: &PairConfig, clients: ClientAccess) -> Result<String, RenderError> {
    let open = clients == ClientAccess::Open;
    let mut out = String::from("# Written by pgpair: changes are lost. Use spec.postgres.hba.\n");
    // Who logs in there only proves a password: see `sql::proof`.
    let _ = writeln!(out, "local {PROOF_DATABASE} all scram-sha-256\nlocal all all trust");
    for database in ["replication", "postgres"] {
        let _ = writeln!(out, "hostssl {database} {REPLICATION_ROLE} all cert");
    }
    // Whatever follows, this role needs its certificate, and the agent's comes over the socket only. `all` is every database and no
    // physical replication.
    for database in ["all", "replication"] {
        let _ = writeln!(out, "host {database} {REPLICATION_ROLE},{AGENT_ROLE} all reject");
        // Before the user's lines, so that `host` in them means `hostssl`.
        if open && config.client_tls == ClientTls::Required {
            let _ = writeln!(out, "hostnossl {database} all all reject");
        }
    }
    if open {
        // Whatever the user's lines let in: over the network the superuser comes by its password, if at all.
        let method = if config.superuser_access { "scram-sha-256" } else { "reject" };
        let _ = writeln!(out, "host all {SUPERUSER} all {method}\nhost replication {SUPERUSER} all reject");
        // Quoted, as `all` would be everybody.
        for role in config.roles.iter().filter(|role| role.certificate).map(|role| &role.name) {
            for database in ["all", "replication"] {
                let _ = writeln!(
                    out,
                    "hostssl {database} \"{role}\" all cert\nhost {database} \"{role}\" all reject"
                );
            }
        }
    }
    for line in &config.hba {
        check(line).map_err(|reason| RenderError::HbaLine { line: line.clone(), reason })?;
        if open {
            let _ = writeln!(out, "{line}");
        }
    }
    if open {
        out.push_str("host all all all scram-sha-256\n");
    }
    Ok(out)
}

/// Whether postgres understands the line, as far as that can be told without it (PostgreSQL, The `pg_hba.conf` File).
fn check(line: &str) -> Result<(), &'static str> {
    if line.contains(['\n', '\r', '\0']) {
        return Err("it holds a line break or NUL");
    }
    if line.ends_with('\\') {
        return Err("it ends with a backslash, which would join it with the next line");
    }
    let words = words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let method = match words[..] {
        [] => return Ok(()),
        ["local", _, _, method, ..] => method,
        ["host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc", _, _, address, ref rest @ ..] => {
            method_after(address, rest)?
        }
        ["local" | "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc", ..] => {
            return Err("it has too few fields");
        }
        _ => {
            return Err("it does not begin with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc");
        }
    };
    if METHODS.contains(&method) { Ok(()) } else { Err("its authentication method is unknown") }
}

fn method_after<'a>(address: &str, rest: &[&'a str]) -> Result<&'a str, &'static str> {
    let too_few = "it has too few fields";
    if let Some((ip, length)) = address.split_once('/') {
        let ip: IpAddr = ip.parse().map_err(|_| "its address is none")?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let fits = length.parse::<u8>().is_ok_and(|l| l <= most);
        return if fits { rest.first().copied().ok_or(too_few) } else { Err("its network mask is none") };
    }
    match (address.parse::<IpAddr>(), rest) {
        (Ok(_), [mask, method, ..]) if mask.parse::<IpAddr>().is_ok() => Ok(method),
        (Ok(_), _) => Err("its address has no network mask"),
        (Err(_), [method, ..]) => Ok(method),
        (Err(_), []) => Err(too_few),
    }
}

/// The words of a line: separated by blanks outside of double quotes, up to a comment.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut out: Vec<String> = Vec::new();
    let (mut quoted, mut inside) = (false, false);
    for c in line.chars() {
        match c {
            '#' if !quoted => break,
            ' ' | '\t' if !quoted => inside = false,
            c => {
                if !inside {
                    out.push(String::new());
                    inside = true;
                }
                if c == '"' {
                    quoted = !quoted;
                } else if let Some(word) = out.last_mut() {
                    word.push(c);
                }
            }
        }
    }
    if quoted { Err("a quote is not closed") } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str, client_tls: ClientTls) -> PairConfig {
        PairConfig { hba: vec![line.to_owned()], client_tls, ..PairConfig::default() }
    }

    const LINE: &str = "host app app 10.0.0.0/8 md5";

    #[test]
    fn closed_lets_in_nobody_but_ourselves_and_the_standby() {
        let config = config(LINE, ClientTls::Optional);
        let closed = hba_conf(&config, ClientAccess::Closed).unwrap();
        assert!(!closed.contains("host all all") && !closed.contains("app"));
        let open = hba_conf(&config, ClientAccess::Open).unwrap();
        assert!(open.find("10.0.0.0/8") < open.find("host all all all scram-sha-256"));
    }

    #[test]
    fn a_client_without_tls_is_turned_away_before_any_line_of_the_user_if_tls_is_required() {
        let required = hba_conf(&config(LINE, ClientTls::Required), ClientAccess::Open).unwrap();
        assert!(required.contains("hostnossl all all all reject"));
        assert!(required.find("hostnossl") < required.find("10.0.0.0/8"));
        let optional = hba_conf(&config(LINE, ClientTls::Optional), ClientAccess::Open).unwrap();
        assert!(!optional.contains("hostnossl"));
    }

    #[test]
    fn the_superuser_comes_by_its_password_if_at_all_before_any_line_of_the_user() {
        for (superuser_access, line) in
            [(false, "host all postgres all reject"), (true, "host all postgres all scram-sha-256")]
        {
            let config = PairConfig { superuser_access, ..config(LINE, ClientTls::Required) };
            let text = hba_conf(&config, ClientAccess::Open).unwrap();
            let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
            assert!(at("hostnossl all all") < at(line) && at(line) < at("10.0.0.0/8"), "{text}");
            assert!(at("host replication postgres all reject") < at("10.0.0.0/8"), "{text}");
        }
    }

    #[test]
    fn a_role_with_a_certificate_comes_by_that_and_by_nothing_else_whatever_the_user_adds() {
        let role = |name: &str, certificate| pgpair_wire::config::RoleConfig {
            name: name.into(),
            login: true,
            member_of: Vec::new(),
            connection_limit: -1,
            certificate,
        };
        let roles = vec![role("all", true), role("audit", false)];
        let config = PairConfig { roles, ..config("host all all all trust", ClientTls::Optional) };
        let text = hba_conf(&config, ClientAccess::Open).unwrap();
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        for database in ["all", "replication"] {
            let (cert, reject) = (
                format!("hostssl {database} \"all\" all cert"),
                format!("host {database} \"all\" all reject"),
            );
            assert!(at(&cert) < at(&reject) && at(&reject) < at("host all all all trust"), "{text}");
        }
        assert!(!text.contains("audit"), "its password counts");
        assert!(
            !hba_conf(&config, ClientAccess::Closed).unwrap().contains("\"all\""),
            "nobody is let in yet"
        );
    }

    #[test]
    fn a_line_that_postgres_would_not_start_with_is_refused() {
        for (line, word) in [
            ("a\nlocal all all trust", "line break"),
            ("hots all all all md5", "begin"),
            ("host all all all", "too few"),
            ("host all all 10.0.0.0/33 md5", "mask"),
            ("host all all 10.0.0.1 md5", "no network mask"),
            ("host all all all magic", "method"),
            ("local all \"all trust", "quote"),
            ("local all all trust \\", "backslash"),
        ] {
            let config = config(line, ClientTls::Required);
            let e = hba_conf(&config, ClientAccess::Closed).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
    }

    #[test]
    fn every_form_of_the_manual_is_a_line() {
        for line in [
            "local   all             all                                     peer map=x",
            "host    all             all             127.0.0.1/32            trust",
            "host    all             all             127.0.0.1       255.255.255.255     trust",
            "host    all             all             ::1/128                 trust # me",
            "hostssl \"my db\"       +admins,@others .example.com            scram-sha-256",
            "hostnossl all           /^.*$           samenet                 ldap ldapserver=\"a b\"",
            "# a comment",
            "",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }
}
