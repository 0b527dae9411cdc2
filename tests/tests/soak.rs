//! All programs are restarted at random while clients come and go and packets
//! flow; in the end nothing is left over.
//!
//! `CARRICK_SOAK=10m cargo test -p carrick-tests --test soak` runs for as long
//! as it says, 20 s otherwise, and shows every ten seconds how far it is. The
//! seed is printed; `CARRICK_SOAK_SEED` draws the same again.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "soak/accounts.rs"]
mod accounts;
#[path = "soak/lots.rs"]
mod lots;
#[path = "soak/site.rs"]
mod site;

use std::io::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use self::accounts::{Account, Books};
use self::lots::Lots;
use self::site::Site;

/// How long restarts go on, unless `CARRICK_SOAK` says otherwise.
const USUAL: Duration = Duration::from_secs(20);

/// How often a long run shows how far it is.
const NEWS: Duration = Duration::from_secs(10);

/// Visits at the end, during which nothing is restarted.
const CALM_VISITS: usize = 8;

fn duration() -> Duration {
    let Ok(text) = std::env::var("CARRICK_SOAK") else {
        return USUAL;
    };
    let (number, unit) = text.split_at(text.len() - text.len().min(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("CARRICK_SOAK is {text:?}; a number and s, m or h is wanted, such as 10m"),
    };
    let number: u64 = number.parse().expect("CARRICK_SOAK begins with a number");
    Duration::from_secs(number * seconds)
}

/// Past the capture of a test's output, which is shown at its end only.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "soak: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_restarted_however_often_nothing_is_left_over() {
    let (time, mut lots) = (duration(), Lots::new());
    say(&format!("{time:?}, CARRICK_SOAK_SEED={}", lots.seed()));
    let mut site = Site::new().await;
    let books = Books::open(&site).await;

    let (begin, mut news) = (Instant::now(), Instant::now() + NEWS);
    while begin.elapsed() < time {
        site.disturb(&mut lots).await;
        site.packets_go_on().await;
        if Instant::now() > news {
            news += NEWS;
            say(&format!(
                "{:?} of {time:?}: {}",
                begin.elapsed(),
                site.tally()
            ));
        }
    }
    site.everybody_leaves(&mut lots).await;
    let account = books.are_balanced(&site).await;
    // What each restart of another leaves behind adds up.
    account.is_near(books.opening());

    for _ in 0..CALM_VISITS {
        site.visit(&mut lots).await;
    }
    site.everybody_leaves(&mut lots).await;
    books.are_balanced(&site).await;
    Account::returns_to(&site, &account).await;
    let tally = site.tally();
    let packets = site.end();
    say(&format!("{tally}; {packets:?}"));
    assert_eq!(packets.lost, 0, "of those who stay: {packets:?}");
}
