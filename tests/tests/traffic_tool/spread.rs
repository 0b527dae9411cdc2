//! Connections that are counted.

use crate::site::{Site, json, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_takes_turns_shows_a_single_row() {
    let site = Site::new();
    site.balance_in_turn(10);
    let _server = site.serve(&["--name-by-address"]).await;
    let args = [
        "client",
        "10.0.0.1:5001",
        "-n",
        "1000",
        "--sources",
        "20.0.0.0/16",
        "--output",
        "json",
    ];
    let output = site.traffic(&args);
    assert!(output.status.success(), "{output:?}");
    let result = json(&output);
    assert_eq!(result["connects"], 1000);
    assert_eq!(result["failed_connects"], 0);
    assert_eq!(result["failed_reads"], 0);
    assert_eq!(result["timeout"], 3_000_000_000u64);
    assert!(result["start_time"].is_string() && result["duration"].as_u64().unwrap() > 0);
    let hosts = result["hosts"].as_object().unwrap();
    assert_eq!(hosts.len(), 10);
    assert!(hosts.values().all(|count| count == 100));

    let dir = tempfile::tempdir().unwrap();
    let (file, picture) = (
        dir.path().join("mconnect-turns"),
        dir.path().join("turns.svg"),
    );
    std::fs::write(&file, &output.stdout).unwrap();
    let (file, picture) = (file.to_str().unwrap(), picture.to_str().unwrap());
    let table = site.traffic(&["table", file, file, "--servers", "12", "--svg", picture]);
    let text = stdout(&table);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..3],
        ["turns     turns", "   2 0       2 0", "  10 100    10 100"]
    );
    assert!(
        std::fs::read_to_string(picture)
            .unwrap()
            .starts_with("<svg ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gets_nothing_is_a_failure_when_it_was_expected() {
    let site = Site::new();
    site.balance_in_turn(9);
    let _server = site.serve(&["--name-by-address", "--quiet"]).await;
    let run =
        |expect: &str| site.traffic(&["client", "10.0.0.1:5001", "-n", "90", "--expect", expect]);
    assert!(run("9").status.success());
    let output = run("10");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("only 9 of 10 servers"), "{errors}");
    let output = run("10.1.0.1,10.1.0.10");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("no connection reached 10.1.0.10"),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn vips_of_both_families_answer_over_tcp_and_udp_from_their_own_address() {
    let site = Site::new();
    let _server = site.serve(&["--name", "fish"]).await;
    for (target, sources) in [
        ("10.0.0.1:5001", "20.0.0.0/16"),
        ("[fd00:10::1]:5001", "fd00:20::/64"),
    ] {
        for transport in ["tcp", "udp"] {
            let args = [
                "client",
                target,
                "-n",
                "200",
                "--json",
                "--transport",
                transport,
                "--sources",
                sources,
            ];
            let output = site.traffic(&args);
            assert!(output.status.success(), "{target} {transport}: {output:?}");
            assert_eq!(json(&output)["hosts"]["fish"], 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_connect_makes_the_exit_code_a_failure() {
    let site = Site::new();
    let output = site.traffic(&["client", "10.0.0.1:5001", "-n", "3", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let result = json(&output);
    assert_eq!(
        (&result["failed_connects"], &result["errors"]["refused"]),
        (&3.into(), &3.into())
    );
}
