//! A CPU profile over HTTP. Alone in its process, whose timer it uses.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carrick_telemetry::Profiles;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[inline(never)]
fn spin_for_the_profile(stop: &AtomicBool) -> u64 {
    let mut sum = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        for number in 0..1000 {
            sum = black_box(sum.wrapping_add(number));
        }
    }
    sum
}

async fn get(profiles: &std::net::SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(profiles).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: pprof\r\nConnection: close\r\n\r\n");
    let asked = stream.write_all(request.as_bytes()).await;
    asked.expect("it takes a request");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    read.expect("it answers");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(end.expect("a head") + 4);
    let code = std::str::from_utf8(&answer[9..12]).ok();
    let code = code.and_then(|code| code.parse().ok());
    (code.expect("a status code"), body)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_names_the_function_that_burns_the_time() {
    let profiles = Profiles::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (profiles.address(), CancellationToken::new());
    let server = tokio::spawn(profiles.serve(stop.clone()));
    let done = Arc::new(AtomicBool::new(false));
    let spinning = std::thread::spawn({
        let done = Arc::clone(&done);
        move || spin_for_the_profile(&done)
    });

    let first = get(&address, "/debug/pprof/profile?seconds=1");
    let second = async {
        // One at a time: whichever comes second is told so.
        tokio::task::yield_now().await;
        get(&address, "/debug/pprof/profile?seconds=1").await
    };
    let (first, second) = tokio::join!(first, second);
    let (good, refused) = if first.0 == 200 {
        (first, second)
    } else {
        (second, first)
    };
    assert_eq!((good.0, refused.0), (200, 503));
    assert!(contains(&good.1, "spin_for_the_profile"));
    assert!(contains(&good.1, "nanoseconds"));

    assert_eq!(get(&address, "/debug/pprof/profile?seconds=0").await.0, 400);
    assert_eq!(get(&address, "/debug/pprof/heap").await.0, 404);
    assert!(contains(
        &get(&address, "/debug/pprof/").await.1,
        "go tool pprof"
    ));
    done.store(true, Ordering::Relaxed);
    spinning.join().unwrap();
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = Profiles::bind("localhost:0").await.unwrap();
    let error = Profiles::bind(&taken.address().to_string())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&taken.address().to_string()),
        "{error}"
    );
}
