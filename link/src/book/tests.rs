use carrick_agent::Recording;

use super::*;
use crate::testing::{Slow, id, prefix, site, tunnel};

async fn book(slow: &str) -> (LinkBook, Arc<Slow>) {
    let agent = Arc::new(Slow::new(slow).await);
    (LinkBook::new(agent.clone()), agent)
}

async fn delete(book: &LinkBook, connection: &str, link: &str) {
    book.delete(&id(connection), site().router, &id(link), Side::Client)
        .await
        .unwrap();
}

#[tokio::test]
async fn withheld_routes_leave_those_to_the_neighbour() {
    let (book, agent) = book("no link").await;
    let link = tunnel("l", "10.0.1.0/24");
    book.put(&id("c"), link.clone()).await.unwrap();
    book.withhold(&id("c"), true).await.unwrap();
    assert_eq!(agent.routes("l"), [prefix("10.0.1.0/32")]);
    assert_eq!(book.routes(&id("c")), agent.routes("l"));
    book.withhold(&id("c"), false).await.unwrap();
    assert_eq!(agent.agent.links(), [link]);
}

#[tokio::test]
async fn what_is_put_while_withheld_stays_withheld() {
    let (book, agent) = book("no link").await;
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    book.withhold(&id("c"), true).await.unwrap();
    book.put(&id("c"), tunnel("l", "10.0.2.0/24"))
        .await
        .unwrap();
    assert_eq!(agent.routes("l"), [prefix("10.0.1.0/32")]);
    book.withhold(&id("c"), false).await.unwrap();
    assert!(agent.routes("l").contains(&prefix("10.0.2.0/24")));
}

#[tokio::test]
async fn a_link_that_is_made_anew_is_not_withheld() {
    let (book, agent) = book("no link").await;
    book.withhold(&id("c"), true).await.unwrap();
    assert!(book.lock().is_empty());
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    book.withhold(&id("c"), true).await.unwrap();
    delete(&book, "c", "l").await;
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    assert_eq!(agent.routes("l").len(), 2);
}

#[tokio::test]
async fn a_change_that_is_cut_off_does_not_block_the_next() {
    let (book, agent) = book("l").await;
    let connection = id("c");
    tokio::select! {
        biased;
        _ = book.put(&connection, tunnel("l", "10.0.1.0/24")) => unreachable!("it is not let"),
        () = std::future::ready(()) => {}
    }
    // It may have been made: it counts until it is deleted.
    assert_eq!(book.link_ids(), [id("l")]);
    agent.lets.add_permits(2);
    book.put(&connection, tunnel("l", "10.0.2.0/24"))
        .await
        .unwrap();
    assert!(agent.routes("l").contains(&prefix("10.0.2.0/24")));
    delete(&book, "c", "l").await;
    assert!(book.lock().is_empty() && agent.agent.links().is_empty());
}

#[tokio::test]
async fn a_delete_that_is_cut_off_may_be_repeated() {
    let (book, agent) = book("l").await;
    agent.lets.add_permits(1);
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    tokio::select! {
        biased;
        () = delete(&book, "c", "l") => unreachable!("it is not let"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(book.link_ids(), [id("l")]);
    agent.lets.add_permits(1);
    delete(&book, "c", "l").await;
    assert!(book.lock().is_empty() && agent.agent.links().is_empty());
}

#[tokio::test]
async fn of_two_changes_of_a_link_the_later_one_counts() {
    let (book, agent) = book("l").await;
    let connection = id("c");
    let first = book.put(&connection, tunnel("l", "10.0.1.0/24"));
    let second = book.put(&connection, tunnel("l", "10.0.2.0/24"));
    let third = book.withhold(&connection, true);
    let let_them = async {
        // All three have begun, and only one is with the agent.
        tokio::task::yield_now().await;
        assert_eq!(agent.agent.calls().len(), 1);
        agent.lets.add_permits(3);
    };
    let (first, second, third, ()) = tokio::join!(first, second, third, let_them);
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(agent.routes("l"), [prefix("10.0.1.0/32")]);
    agent.lets.add_permits(1);
    book.withhold(&connection, false).await.unwrap();
    assert!(agent.routes("l").contains(&prefix("10.0.2.0/24")));
}

#[tokio::test]
async fn one_link_that_is_slow_does_not_hold_up_another() {
    let (book, agent) = book("slow").await;
    let (slow, other) = (id("a"), id("b"));
    let slow = book.put(&slow, tunnel("slow", "10.0.1.0/24"));
    tokio::pin!(slow);
    let mut quick = tunnel("quick", "10.0.2.0/24");
    if let carrick_agent::LinkKind::Vxlan { vni, .. } = &mut quick.kind {
        *vni = carrick_types::Vni::new(8).unwrap();
    }
    tokio::select! {
        biased;
        _ = &mut slow => unreachable!("it is not let"),
        made = book.put(&other, quick) => made.unwrap(),
    }
    agent.lets.add_permits(1);
    slow.await.unwrap();
    assert_eq!(agent.agent.links().len(), 2);
}

#[tokio::test]
async fn a_failed_change_leaves_what_was_there() {
    let (book, agent) = book("no link").await;
    agent.agent.fail_at(0);
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap_err();
    assert!(book.lock().is_empty());
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    let before = (book.routes(&id("c")), agent.agent.links());
    agent.agent.fail_at(0);
    book.put(&id("c"), tunnel("l", "10.0.2.0/24"))
        .await
        .unwrap_err();
    agent.agent.fail_at(0);
    let router = site().router;
    let deleted = book.delete(&id("c"), router, &id("l"), Side::Client).await;
    deleted.unwrap_err();
    assert_eq!((book.routes(&id("c")), agent.agent.links()), before);
}

#[tokio::test]
async fn deleting_what_is_not_there_is_no_error_and_leaves_the_rest() {
    let (book, agent) = book("no link").await;
    delete(&book, "c", "l").await;
    assert!(book.lock().is_empty());
    book.put(&id("c"), tunnel("l", "10.0.1.0/24"))
        .await
        .unwrap();
    delete(&book, "c", "other").await;
    assert_eq!(book.link_ids(), [id("l")]);
    assert_eq!(agent.agent.links().len(), 1);
}

#[tokio::test]
async fn a_connection_without_a_link_has_no_routes() {
    let book = LinkBook::new(Arc::new(Recording::new()));
    assert!(book.routes(&id("c")).is_empty());
}
