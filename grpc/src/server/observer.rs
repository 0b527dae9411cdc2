use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Response, Status};

type Tell = Arc<dyn Fn(Code, Duration) + Send + Sync>;

/// Is told of each Request that was answered: with which code, and how long it
/// took. By default nobody is told.
#[derive(Clone, Default)]
pub struct Observer(Option<Tell>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}

impl Observer {
    /// Tells `tell`, which must not block.
    #[must_use]
    pub fn new(tell: impl Fn(Code, Duration) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    /// Begins the time of a Request.
    pub(super) fn begin(&self) -> Observed<'_> {
        Observed {
            observer: self,
            begin: Instant::now(),
            code: Code::Cancelled,
        }
    }
}

/// A Request that is being served. Dropped without an answer, its caller went
/// away.
pub(super) struct Observed<'a> {
    observer: &'a Observer,
    begin: Instant,
    code: Code,
}

impl Observed<'_> {
    pub(super) fn answer<T>(
        mut self,
        answer: Result<Response<T>, Status>,
    ) -> Result<Response<T>, Status> {
        self.code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        answer
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        if let Some(tell) = &self.observer.0 {
            tell(self.code, self.begin.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_request_is_told_once_also_when_its_caller_went_away() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let observer = Observer::new(move |code, _| tell.lock().unwrap().push(code));
        observer.begin().answer(Ok(Response::new(()))).unwrap();
        let refused = Err::<Response<()>, _>(Status::unavailable("full"));
        observer.begin().answer(refused).unwrap_err();
        drop(observer.begin());
        let codes = [Code::Ok, Code::Unavailable, Code::Cancelled];
        assert_eq!(*told.lock().unwrap(), codes);
    }
}
