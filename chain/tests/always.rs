//! What holds after any history of Requests, Closes and failures.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carrick_chain::testing::{Log, Record, TestTokens, request};
use carrick_chain::{Chain, Element, Endpoint, EndpointOptions, Error, Kind, Next};
use carrick_types::{Connection, State};
use proptest::prelude::*;
use tokio::time::Instant;

const ELEMENTS: usize = 4;

/// How the element at a position fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    AnswerLost,
    Close,
    HangClose,
    HangRequest,
    Request,
}

/// The one failure that is due.
type Due = Arc<Mutex<Option<(usize, Failure)>>>;

struct Flaky {
    position: usize,
    due: Due,
}

impl Flaky {
    fn fails(&self, failures: &[Failure]) -> Option<Failure> {
        let mut due = self.due.lock().unwrap();
        let (_, failure) =
            due.take_if(|(at, failure)| *at == self.position && failures.contains(failure))?;
        Some(failure)
    }
}

impl Element for Flaky {
    const NAME: &'static str = "flaky";
    type State = ();

    async fn request(
        &self,
        connection: Connection,
        state: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        *state = Some(());
        let failed =
            |connection: &_| Error::request(Self::NAME, connection, Kind::Unavailable, "due");
        match self.fails(&[Failure::AnswerLost, Failure::HangRequest, Failure::Request]) {
            Some(Failure::Request) => Err(failed(&connection)),
            Some(Failure::AnswerLost) => Err(failed(&next.request(connection).await?)),
            Some(_) => std::future::pending().await,
            None => next.request(connection).await,
        }
    }

    async fn close(&self, connection: &Connection, (): &mut ()) -> Result<(), Error> {
        match self.fails(&[Failure::Close, Failure::HangClose]) {
            Some(Failure::Close) => Err(Error::close(
                Self::NAME,
                connection,
                Kind::Unavailable,
                "due",
            )),
            Some(_) => std::future::pending().await,
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Close,
    Request,
    Reselect,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Request),
        2 => Just(Act::Close),
        1 => Just(Act::Reselect),
        1 => (1u64..200).prop_map(Act::Wait),
    ]
}

fn failure() -> impl Strategy<Value = Option<(usize, Failure)>> {
    use Failure::{AnswerLost, Close, HangClose, HangRequest, Request};
    let kind = prop::sample::select(vec![AnswerLost, Close, HangClose, HangRequest, Request]);
    prop::option::of((0..ELEMENTS, kind))
}

/// How often each element has been opened less how often closed.
fn open(log: &Log) -> [i32; ELEMENTS] {
    let mut open = [0; ELEMENTS];
    for line in log.lines() {
        let element: usize = line[1..].parse().unwrap();
        open[element] += match &line[..1] {
            "+" => 1,
            "-" => -1,
            _ => 0,
        };
    }
    open
}

async fn run(history: Vec<(Act, Option<(usize, Failure)>)>) {
    let (log, due) = (Log::default(), Due::default());
    let chain = (0..ELEMENTS).fold(Chain::default(), |chain, position| {
        let flaky = Flaky {
            position,
            due: due.clone(),
        };
        chain
            .then(Record::new(&log, position.to_string()))
            .then(flaky)
    });
    let options = EndpointOptions::new("nse", TestTokens::default());
    let endpoint = Endpoint::new(options, chain);
    let mut last = request("nsc", "1");
    for (act, failure) in history {
        *due.lock().unwrap() = failure;
        let deadline = Instant::now() + Duration::from_secs(5);
        let up = !endpoint.connections().is_empty();
        match act {
            Act::Close => {
                let _ = endpoint.close(last.clone()).await;
                assert!(
                    endpoint.connections().is_empty(),
                    "it is not served any more"
                );
            }
            Act::Request => {
                let answer = endpoint.request(last.clone(), deadline).await;
                let is_up = !endpoint.connections().is_empty();
                assert_eq!(
                    is_up,
                    up || answer.is_ok(),
                    "a failed refresh leaves what is up"
                );
                last = answer.unwrap_or(last);
            }
            Act::Reselect => {
                last.state = State::ReselectRequested;
                let answer = endpoint.request(last.clone(), deadline).await;
                assert_eq!(!endpoint.connections().is_empty(), answer.is_ok());
                last = answer.unwrap_or(last);
                last.state = State::Up;
            }
            Act::Wait(seconds) => {
                let then = Instant::now() + Duration::from_secs(seconds);
                tokio::time::sleep_until(then).await;
            }
        }
        let open = open(&log);
        assert!(
            open.is_sorted_by(|a, b| a >= b),
            "a later element outlives an earlier: {open:?}"
        );
        assert!(
            open.iter().all(|n| (0..=1).contains(n)),
            "opened or closed twice: {open:?}"
        );
        if !endpoint.connections().is_empty() {
            assert_eq!(open, [1; ELEMENTS], "what is up is whole");
        }
    }
    assert!(endpoint.shutdown(Duration::from_secs(60)).await);
    assert_eq!(open(&log), [0; ELEMENTS], "something is left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_is_left_and_nothing_is_half_open_whatever_happens(
        history in prop::collection::vec((act(), failure()), 0..30),
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run(history));
    }
}
