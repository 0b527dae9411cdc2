//! What outlives the process.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use carrick_chain::testing::{Count, Fault, TestTokens, request, request_valid_for, soon};
use carrick_chain::{BoxError, Chain, Endpoint, EndpointOptions, Journal, Kind};
use carrick_types::{Connection, ConnectionId, State};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Default)]
struct Book {
    kept: Arc<Mutex<BTreeMap<ConnectionId, Connection>>>,
    puts: Arc<AtomicUsize>,
    full: Arc<AtomicBool>,
}

impl Book {
    fn connections(&self) -> Vec<Connection> {
        self.kept.lock().unwrap().values().cloned().collect()
    }
}

impl Journal for Book {
    fn put(&self, connection: &Connection) -> BoxFuture<'_, Result<(), BoxError>> {
        let connection = connection.clone();
        async move {
            if self.full.load(Ordering::SeqCst) {
                return Err("disk full".into());
            }
            self.puts.fetch_add(1, Ordering::SeqCst);
            self.kept
                .lock()
                .unwrap()
                .insert(connection.id.clone(), connection);
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, id: &ConnectionId) -> BoxFuture<'_, Result<(), BoxError>> {
        self.kept.lock().unwrap().remove(id);
        async { Ok(()) }.boxed()
    }
}

fn endpoint(book: &Book, chain: Chain) -> Endpoint {
    let options = EndpointOptions::new("nse", TestTokens::default()).journal(book.clone());
    Endpoint::new(options, chain)
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_until_it_is_closed() {
    let book = Book::default();
    let endpoint = endpoint(&book, Chain::default());
    let answer = endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert_eq!(book.connections(), [(*endpoint.connections()[0]).clone()]);
    endpoint.close(answer).await.unwrap();
    assert!(book.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_kept_is_not_given() {
    let (book, count) = (Book::default(), Count::default());
    book.full.store(true, Ordering::SeqCst);
    let endpoint = endpoint(&book, Chain::default().then(count.clone()));
    let error = endpoint
        .request(request("nsc", "1"), soon())
        .await
        .unwrap_err();
    assert_eq!((error.element, error.kind), ("journal", Kind::Unavailable));
    assert_eq!((count.requests(), count.closes()), (1, 1));
    assert!(endpoint.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_kept_where_a_successor_would_miss_it() {
    let book = Book::default();
    let endpoint = endpoint(&book, Chain::default());
    let first = request_valid_for("nsc", "1", LONG);
    let answer = endpoint.request(first, soon()).await.unwrap();
    let ask = async |life: Duration, label: &str| {
        let mut asked = answer.clone();
        asked.path.segments[0].expires = Some(SystemTime::now() + life);
        asked.labels.0.insert("app".into(), label.into());
        endpoint.request(asked, soon()).await.unwrap();
        book.puts.load(Ordering::SeqCst)
    };
    assert_eq!(ask(LONG, "a").await, 2, "it has a label");
    assert_eq!(ask(LONG, "a").await, 2, "nothing is new but the tokens");
    assert_eq!(ask(LONG * 105 / 100, "a").await, 2);
    assert_eq!(ask(LONG * 2, "a").await, 3, "it lives longer");
    assert_eq!(ask(LONG, "a").await, 4, "it lives shorter");
    assert_eq!(ask(LONG, "b").await, 5, "its label is another");
    assert_eq!(book.connections()[0].labels.0["app"], "b");
}

#[tokio::test(start_paused = true)]
async fn stop_leaves_the_journal_to_the_successor() {
    let book = Book::default();
    let endpoint = endpoint(&book, Chain::default());
    endpoint.request(request("nsc", "1"), soon()).await.unwrap();
    assert!(endpoint.stop(LONG).await);
    assert_eq!(book.connections().len(), 1);
}

/// What a process killed after one answer leaves.
async fn killed(life: Duration) -> (Book, Connection) {
    let book = Book::default();
    let endpoint = endpoint(&book, Chain::default());
    let asked = request_valid_for("nsc", "1", life);
    let answer = endpoint.request(asked, soon()).await.unwrap();
    endpoint.stop(LONG).await;
    (book, answer)
}

#[tokio::test(start_paused = true)]
async fn a_restored_connection_is_refreshed_under_the_same_id() {
    let (book, answer) = killed(LONG).await;
    let count = Count::default();
    let endpoint = endpoint(&book, Chain::default().then(count.clone()));
    for connection in book.connections() {
        endpoint.restore(connection).await.unwrap();
    }
    assert_eq!(endpoint.connections().len(), 1);
    let again = endpoint.request(answer.clone(), soon()).await.unwrap();
    assert_eq!(again.path.segments[1].id, answer.path.segments[1].id);
    assert_eq!(count.requests(), 2);
    endpoint.close(again).await.unwrap();
    assert_eq!((count.closes(), book.connections().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_restored_at_once_is_kept_all_the_same() {
    let (book, _) = killed(LONG).await;
    let count = Count::default();
    let fault = Fault::request(Kind::Unavailable).at(1);
    let chain = Chain::default().then(count.clone()).with_fault(1, fault);
    let endpoint = endpoint(&book, chain);
    let stored = book.connections().remove(0);
    endpoint.restore(stored.clone()).await.unwrap_err();
    assert_eq!((count.closes(), book.connections().len()), (0, 1));
    endpoint.restore(stored).await.unwrap();
    assert_eq!(endpoint.connections().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_expired_meanwhile_is_closed() {
    let (book, _) = killed(Duration::from_secs(100)).await;
    let mut stored = book.connections().remove(0);
    stored.path.segments[0].expires = Some(SystemTime::now() - LONG);
    let count = Count::default();
    let endpoint = endpoint(&book, Chain::default().then(count.clone()));
    let _ = endpoint.restore(stored).await;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
    assert_eq!((count.requests(), count.closes()), (1, 1));
    assert!(book.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_was_begun_is_gone_on_with() {
    let book = Book::default();
    let chain = Chain::default().with_fault(0, Fault::close(Kind::Unavailable));
    let first = endpoint(&book, chain);
    let answer = first.request(request("nsc", "1"), soon()).await.unwrap();
    first.close(answer).await.unwrap_err();
    first.stop(LONG).await;
    let stored = book.connections().remove(0);
    assert_eq!(stored.state, State::Down);
    let count = Count::default();
    let endpoint = endpoint(&book, Chain::default().then(count.clone()));
    let _ = endpoint.restore(stored).await;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
    assert_eq!((count.requests(), count.closes()), (1, 1));
    assert!(book.connections().is_empty());
}
