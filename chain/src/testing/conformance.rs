use std::fmt::Debug;
use std::time::Duration;

use carrick_types::Connection;

use super::{Fault, TestTokens, soon};
use crate::{Chain, Endpoint, EndpointOptions, Kind};

/// What a test makes an endpoint of.
pub trait Parts {
    /// What stands for the world outside the process.
    type World;

    /// The options, the chain and the world.
    fn parts(self) -> (EndpointOptions, Chain, Self::World);
}

impl<W> Parts for (Chain, W) {
    type World = W;

    fn parts(self) -> (EndpointOptions, Chain, W) {
        let options = EndpointOptions::new("nse", TestTokens::default());
        (options, self.0, self.1)
    }
}

impl<W> Parts for (EndpointOptions, Chain, W) {
    type World = W;

    fn parts(self) -> (EndpointOptions, Chain, W) {
        self
    }
}

const LONG: Duration = Duration::from_secs(600);

/// Fails a first Request at each element in turn, before and after those behind
/// it have served it and by a deadline that passes, and asserts that `look`
/// sees the same of the outside world as before.
///
/// `build` makes a chain and what stands for its outside world. Wants a runtime
/// whose time is paused.
///
/// # Panics
///
/// Something is left.
pub async fn leaves_nothing_after_a_failure<P: Parts, S: PartialEq + Debug>(
    request: &Connection,
    build: impl AsyncFn() -> P,
    look: impl AsyncFn(&P::World) -> S,
) {
    let faults = [
        Fault::request(Kind::Unavailable),
        Fault::answer_lost(Kind::Unavailable),
        Fault::hang(),
    ];
    let positions = build().await.parts().1.len();
    for position in 0..=positions {
        for fault in &faults {
            let (options, chain, world) = build().await.parts();
            let before = look(&world).await;
            let endpoint = Endpoint::new(options, chain.with_fault(position, fault.clone()));
            let answer = endpoint.request(request.clone(), soon()).await;
            assert!(answer.is_err(), "{fault:?} at {position} is not noticed");
            assert!(
                endpoint.shutdown(LONG).await,
                "{fault:?} at {position}: not all is closed"
            );
            assert_eq!(
                look(&world).await,
                before,
                "{fault:?} at {position} leaves something"
            );
        }
    }
}

/// Asks twice and closes twice, and all that once more: asserts that `look`
/// sees no difference between once and twice, and nothing left at the end.
///
/// # Panics
///
/// There is a difference, or a Request or Close fails.
pub async fn may_be_done_twice<P: Parts, S: PartialEq + Debug>(
    request: &Connection,
    build: impl AsyncFn() -> P,
    look: impl AsyncFn(&P::World) -> S,
) {
    let (options, chain, world) = build().await.parts();
    let endpoint = Endpoint::new(options, chain);
    let before = look(&world).await;
    for round in 1..=2 {
        let answer = endpoint
            .request(request.clone(), soon())
            .await
            .expect("a Request succeeds");
        let once = look(&world).await;
        let again = endpoint
            .request(answer.clone(), soon())
            .await
            .expect("a refresh succeeds");
        assert_eq!(
            again.context, answer.context,
            "round {round}: a refresh answers otherwise"
        );
        assert_eq!(
            look(&world).await,
            once,
            "round {round}: a refresh makes a difference"
        );
        for _ in 0..2 {
            endpoint
                .close(again.clone())
                .await
                .expect("a Close succeeds");
            assert_eq!(
                look(&world).await,
                before,
                "round {round}: a Close leaves something"
            );
        }
    }
}

/// Fails a Close once before each element in turn and asserts that `look` sees
/// nothing left in the end. Wants a runtime whose time is paused.
///
/// # Panics
///
/// Something is left.
pub async fn may_fail_to_close<P: Parts, S: PartialEq + Debug>(
    request: &Connection,
    build: impl AsyncFn() -> P,
    look: impl AsyncFn(&P::World) -> S,
) {
    let positions = build().await.parts().1.len();
    for position in 0..=positions {
        let (options, chain, world) = build().await.parts();
        let before = look(&world).await;
        let endpoint = Endpoint::new(
            options,
            chain.with_fault(position, Fault::close(Kind::Unavailable).at(1)),
        );
        let answer = endpoint
            .request(request.clone(), soon())
            .await
            .expect("a Request succeeds");
        endpoint
            .close(answer)
            .await
            .expect_err("the first Close fails");
        assert!(
            endpoint.shutdown(LONG).await,
            "{position}: not all is closed"
        );
        assert_eq!(
            look(&world).await,
            before,
            "a failed Close at {position} leaves something"
        );
    }
}
