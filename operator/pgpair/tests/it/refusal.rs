//! What keeps postgres from running is reported in the words of the program that refuses, and costs no copy that cannot help.

use pgpair_core::ids::InstanceId;
use pgpair_wire::config::{Bootstrap, PairConfig};
use pgpair_wire::paths;

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn config(generation: i64) -> PairConfig {
    PairConfig { generation, ttl_ms: 2_000, ..PairConfig::default() }
}

async fn in_trouble(pair: &Pair, who: InstanceId) -> String {
    eventually("it says what keeps postgres from running", LIMIT, async || {
        let report = pair.report(who).await?;
        assert_eq!(report.need, None, "a copy would not help");
        report.trouble
    })
    .await
}

/// As the operator does: again until it is taken.
async fn push(pair: &Pair, to: InstanceId, config: &PairConfig) {
    let body = serde_json::to_string(config).unwrap();
    eventually("the configuration is taken", LIMIT, async || {
        let (status, said) = pair.ask(to, "PUT", paths::CONFIG, &body).await.ok()?;
        if status != 200 {
            println!("configuration {}: {status} {said}", config.generation);
        }
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_library_is_missing_says_so_and_comes_back_with_the_corrected_setting() {
    let mut pair = Pair::up().await;
    // There when it is set, and gone with the next image.
    let library = pair.pgdata(B).join("no_such_library.so");
    std::fs::write(&library, "").unwrap();
    let mut gone = config(2);
    gone.parameters.insert("shared_preload_libraries".into(), library.display().to_string());
    push(&pair, B, &gone).await;
    pair.kill_container(B);
    std::fs::remove_file(&library).unwrap();
    pair.start(B);
    let words = in_trouble(&pair, B).await;
    assert!(words.contains("FATAL:") && words.contains("no_such_library"), "{words}");
    assert!(pair.is_writable(A).await);
    push(&pair, B, &config(3)).await;
    pair.paired().await;
    eventually("nothing is told any more", LIMIT, async || {
        pair.report(B).await?.trouble.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_data_directory_that_cannot_be_made_is_told_in_the_words_of_initdb() {
    let bootstrap = Bootstrap { locale: "xx_XX.UTF-8".into(), ..Bootstrap::default() };
    let mut pair = Pair::new(PairConfig { bootstrap, ..config(1) }).await;
    pair.start(A);
    let words = in_trouble(&pair, A).await;
    assert!(words.contains("initdb") && words.contains("locale"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_refused_is_told_in_the_words_of_postgres() {
    let mut misspelt = config(1);
    misspelt.parameters.insert("shared_preload_libraries".into(), "no_such_library".into());
    let mut pair = Pair::new(misspelt).await;
    pair.start(A);
    let words = in_trouble(&pair, A).await;
    assert!(words.contains("no_such_library"), "{words}");
    push(&pair, A, &config(2)).await;
    eventually("a takes writes", LIMIT, async || pair.is_writable(A).await.then_some(())).await;
    assert_eq!(pair.report(A).await.unwrap().trouble, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_another_version_than_the_spec_names_make_no_data_directory() {
    let bootstrap = Bootstrap { version: Some(13), ..Bootstrap::default() };
    let mut pair = Pair::new(PairConfig { bootstrap, ..config(1) }).await;
    pair.start(A);
    let words = in_trouble(&pair, A).await;
    assert!(words.contains("spec.postgres.version is 13"), "{words}");
    assert!(!pair.pgdata(A).join("PG_VERSION").exists());
}
