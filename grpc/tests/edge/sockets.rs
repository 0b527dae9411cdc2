//! Listening and dialling on unix sockets and loopback TCP.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use carrick_grpc::{
    Channels, DialError, DialOptions, ListenError, ListenOptions, Listener, Peer, Security, Url,
    dial, listen,
};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn insecure() -> Security {
    Security::insecure()
}

#[tokio::test]
async fn a_socket_is_made_with_its_directory_and_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/nse.sock");
    let listener = listen(&Url::unix(&path), &insecure()).await.unwrap();
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    listener.socket_file().unwrap().remove().await.unwrap();
    assert!(!path.exists());
    listener.socket_file().unwrap().remove().await.unwrap();
}

#[tokio::test]
async fn a_wider_mode_is_not_narrowed_by_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nse.sock");
    let options = ListenOptions {
        mode: 0o666,
        ..ListenOptions::default()
    };
    let _listener = Listener::bind(&Url::unix(&path), &insecure(), &options)
        .await
        .unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o666
    );
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::unix(directory.path().join("nse.sock"));
    // Neither std nor tokio removes the file when a listener is dropped.
    drop(std::os::unix::net::UnixListener::bind(url.path().unwrap()).unwrap());
    assert!(url.path().unwrap().exists());
    listen(&url, &insecure()).await.unwrap();
}

#[tokio::test]
async fn a_live_socket_is_not_stolen() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::unix(directory.path().join("nse.sock"));
    let mut first = listen(&url, &insecure()).await.unwrap();
    let error = listen(&url, &insecure()).await.unwrap_err();
    assert!(matches!(error, ListenError::Live(_)));
    let text = error.to_string();
    assert!(
        text.contains("nse.sock") && text.contains("stop it"),
        "{text}"
    );
    // The probe of the second was accepted by the first, which still serves.
    let mut client = tokio::net::UnixStream::connect(url.path().unwrap())
        .await
        .unwrap();
    client.write_all(b"x").await.unwrap();
    let mut probe = first.next().await.unwrap().unwrap();
    assert_eq!(probe.read(&mut [0]).await.unwrap(), 0);
    let mut served = first.next().await.unwrap().unwrap();
    assert_eq!(served.read(&mut [0]).await.unwrap(), 1);
    let us = i32::try_from(std::process::id()).unwrap();
    assert!(matches!(served.peer(), Peer::Unix { pid: Some(pid), .. } if pid == us));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_servers_that_start_at_once_exactly_one_gets_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::unix(directory.path().join("nse.sock"));
    drop(std::os::unix::net::UnixListener::bind(url.path().unwrap()).unwrap());
    let started = (0..16).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { listen(&url, &insecure()).await })
    });
    let listeners: Vec<_> = futures::future::join_all(started).await;
    let (got, refused): (Vec<_>, Vec<_>) = listeners
        .into_iter()
        .map(Result::unwrap)
        .partition(Result::is_ok);
    assert_eq!((got.len(), refused.len()), (1, 15));
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = listen(&Url::unix(&path), &insecure()).await.unwrap_err();
    assert!(matches!(error, ListenError::NotASocket(_)));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[tokio::test]
async fn the_file_of_a_later_server_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::unix(directory.path().join("nse.sock"));
    let first = listen(&url, &insecure()).await.unwrap();
    let file = first.socket_file().unwrap();
    drop(first);
    let _second = listen(&url, &insecure()).await.unwrap();
    file.remove().await.unwrap();
    assert!(url.path().unwrap().exists());
}

#[tokio::test]
async fn port_0_becomes_the_port_that_the_system_chose() {
    for url in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://:0"] {
        let mut listener = listen(&url.parse().unwrap(), &insecure()).await.unwrap();
        let Url::Tcp { host, port } = listener.url().clone() else {
            panic!("{url}")
        };
        assert_ne!(port, 0);
        let host = if host.is_empty() {
            "localhost".to_owned()
        } else {
            host
        };
        let client = tokio::net::TcpStream::connect((host.as_str(), port))
            .await
            .unwrap();
        let served = listener.next().await.unwrap().unwrap();
        assert_eq!(served.peer(), Peer::Tcp(client.local_addr().ok()));
    }
}

#[tokio::test]
async fn a_url_with_a_descriptor_is_neither_listened_on_nor_dialled() {
    let url = Url::Inode(4, 5);
    assert!(listen(&url, &insecure()).await.is_err());
    assert!(
        dial(&url, &insecure(), Duration::from_secs(1))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn plaintext_over_tcp_is_neither_listened_on_nor_dialled_unasked() {
    let (url, security) = (Url::tcp("127.0.0.1", 0), Security::unix_only());
    let refused = listen(&url, &security).await.unwrap_err();
    assert!(matches!(refused, ListenError::Plaintext(_)), "{refused}");
    let refused = dial(&url, &security, Duration::from_secs(5)).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, DialError::Plaintext(_)), "{refused}");
    let channels = Channels::new(security, DialOptions::default());
    assert!(channels.channel(&url).is_err());
}
