//! What a superuser of the database reaches beyond the database.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::fixture::{Instance, run};

/// What a shell that postgres starts says to `command`, or that it failed.
async fn shell(i: &Instance, command: &str) -> Result<String, String> {
    let client = i.person("shop").await.unwrap();
    client.batch_execute("CREATE TEMP TABLE said (line text)").await.unwrap();
    let program = command.replace('\'', "''");
    client
        .batch_execute(&format!("COPY said FROM PROGRAM '{program}'"))
        .await
        .map_err(|e| format!("{e:?}"))?;
    let all = "SELECT coalesce(string_agg(line, ' '), '') FROM said";
    Ok(client.query_one(all, &[]).await.unwrap().get(0))
}

#[test]
fn a_superuser_reads_and_changes_nothing_of_the_agents_and_signals_it_not() {
    run(async |w| {
        let layout = &w.a.settings.layout;
        fs::write(layout.state_json(), "of the agent").unwrap();
        w.primary().await;
        let me = std::process::id();
        let secrets = [layout.tls.join("tls.key"), layout.app.join("verifiers.json"), layout.state_json()];
        for path in secrets.iter().map(|path| path.display()) {
            let read = w.a.person("shop").await.unwrap();
            let by_sql = read.query_one(&format!("SELECT pg_read_file('{path}')"), &[]).await.unwrap_err();
            assert!(format!("{by_sql:?}").contains("Permission denied"), "{path}: {by_sql:?}");
            for command in [
                format!("cat {path}"),
                format!("cat /proc/{me}/root{path}"),
                format!("mv {path} /tmp"),
                format!("echo x > {path}"),
                format!("ln {path} {}", layout.in_pgdata("linked").display()),
            ] {
                let said = shell(&w.a, &command).await;
                assert!(said.is_err(), "{command}: {said:?}");
            }
        }
        for command in [
            format!("cat /proc/{me}/environ"),
            format!("kill -0 {me}"),
            format!("touch {}", layout.trigger().display()),
            format!("touch {}", layout.told().join("alone").display()),
        ] {
            let said = shell(&w.a, &command).await;
            assert!(said.is_err(), "{command}: {said:?}");
        }
        assert_eq!(fs::read(layout.state_json()).unwrap(), b"of the agent");
    });
}

#[test]
fn a_superuser_has_what_belongs_to_the_database() {
    run(async |w| {
        let layout = &w.a.settings.layout;
        w.primary().await;
        let place = layout.tablespaces().join("later");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        w.a.exec(&format!("CREATE TABLESPACE later LOCATION '{}'", place.display())).await;
        w.a.exec("CREATE TABLE there (n int) TABLESPACE later; INSERT INTO there VALUES (1)").await;
        assert_eq!(shell(&w.a, "cat /proc/self/comm").await.unwrap(), "cat");
        shell(&w.a, "ls /usr/lib /etc /proc/self").await.unwrap();
        let archived = layout.archive.display();
        shell(&w.a, &format!("touch {archived}/x && rm {archived}/x && date > /dev/null")).await.unwrap();
    });
}
