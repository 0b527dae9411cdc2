//! The agent behind its socket.

use std::path::PathBuf;
use std::sync::Arc;

use carrick_agent::{Agent, Error, Kernel, Protocol, RemoteAgent, Server, ServerError};
use carrick_tests::Namespace;
use tokio::sync::oneshot;

use crate::rig::{OWNER, Rig, chain};

/// A kernel agent served on a socket.
pub(crate) struct Served {
    folder: tempfile::TempDir,
    end: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), ServerError>>,
}

impl Served {
    pub(crate) fn new(groups: Vec<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Arc::new(Kernel::new().unwrap());
        let path = folder.path().join("agent.sock");
        let server = Server::listen(&path, groups, kernel).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(async {
            let _ = ended.await;
        }));
        Self { folder, end, task }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn agent(&self) -> Arc<dyn Agent> {
        Arc::new(RemoteAgent::new(&self.path()).unwrap())
    }
}

/// User and group of nobody in particular.
const STRANGER: u32 = 65_534;

/// Runs `work` on a thread that has given up its user, group and capabilities.
fn unprivileged<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            give_up_privileges();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work())
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(
    unsafe_code,
    reason = "the wrapper of the C library changes all threads"
)]
fn give_up_privileges() {
    use nix::libc::{SYS_setgroups, SYS_setresgid, SYS_setresuid, syscall};
    // SAFETY: the calls take numbers and an empty list; they concern the calling
    // thread alone.
    let failed = unsafe {
        syscall(SYS_setgroups, 0, std::ptr::null::<u32>())
            | syscall(SYS_setresgid, STRANGER, STRANGER, STRANGER)
            | syscall(SYS_setresuid, STRANGER, STRANGER, STRANGER)
    };
    assert_eq!(failed, 0);
}

fn open_folder(served: &Served) {
    use std::os::unix::fs::PermissionsExt as _;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(served.folder.path(), open).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_capabilities_has_everything_done() {
    let served = Served::new(vec![STRANGER]);
    open_folder(&served);
    let (path, client) = (served.path(), Namespace::new("client"));
    let mut rig = Rig {
        agent: served.agent(),
        router: Namespace::reserve("router"),
    };
    tokio::task::block_in_place(|| {
        unprivileged(async || {
            assert!(Kernel::new().is_err() || own_change_fails().await);
            rig.agent = Arc::new(RemoteAgent::new(&path).unwrap());
            rig.apply(vec![rig.put_router()]).await.unwrap();
            let link = rig.link(1, client.foreign());
            rig.put(&link).await.unwrap();
            assert!(rig.pings(&client.foreign(), "10.0.0.1", "10.0.0.0").await);
            let address = "10.0.0.0:53".parse().unwrap();
            let router = rig.router.named();
            let bound = rig.agent.bind(&router, Protocol::Udp, address);
            let bound = tokio::net::UdpSocket::from_std(bound.await.unwrap().into()).unwrap();
            assert_eq!(bound.local_addr().unwrap(), address);
            assert_eq!(rig.list(OWNER).await.len(), 1);
            rig.delete(&link.id).await.unwrap();
            assert!(rig.list(OWNER).await.is_empty());
            // The name is for the privileged half to remove.
            let netns = rig.router.named();
            let delete = carrick_agent::Change::DeleteRouter { netns };
            rig.apply(vec![delete]).await.unwrap();
        });
    });
}

/// Shows that the thread could not do by itself what it has done.
async fn own_change_fails() -> bool {
    let router = carrick_agent::Router {
        netns: carrick_agent::Netns::Own,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        unreachable: Vec::new(),
    };
    let kernel = Kernel::new().unwrap();
    let put = carrick_agent::Change::PutRouter(router);
    kernel.apply(vec![put]).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused() {
    let served = Served::new(vec![1]);
    open_folder(&served);
    let path = served.path();
    tokio::task::block_in_place(|| {
        unprivileged(async || {
            let agent = RemoteAgent::new(&path).unwrap();
            let netns = carrick_agent::Netns::Own;
            let error = agent.list(&netns, OWNER).await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
            let bound = agent.bind(&netns, Protocol::Udp, "127.0.0.1:0".parse().unwrap());
            let error = bound.await.unwrap_err();
            assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        });
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_outlives_the_server() {
    let served = Served::new(Vec::new());
    let agent = served.agent();
    let netns = carrick_agent::Netns::Own;
    agent.list(&netns, OWNER).await.unwrap();
    let path = served.path();
    let second = Server::listen(&path, Vec::new(), Arc::new(Kernel::new().unwrap()));
    assert!(matches!(second, Err(ServerError::InUse { .. })));

    let Served { folder, end, task } = served;
    end.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
    let error = agent.list(&netns, OWNER).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{}", chain(&error));

    // What a killed server leaves does not stand in the way.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let next = Server::listen(&path, Vec::new(), Arc::new(Kernel::new().unwrap())).unwrap();
    let task = tokio::spawn(next.serve(std::future::pending()));
    agent.list(&netns, OWNER).await.unwrap();
    task.abort();
    drop(folder);
}
