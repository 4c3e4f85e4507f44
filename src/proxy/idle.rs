//! The wait of a connection for its client. Timer and word to close are registered once for a
//! connection instead of once for a request: most waits are short, and what nobody looks at costs
//! nothing.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    sync::futures::Notified,
    time::{Instant, Sleep, sleep_until},
};

use super::{drain::Open, stream::ClientStream};

/// How a wait ended.
pub(super) enum Waited {
    /// So many bytes came; 0: the client closed.
    Read(io::Result<usize>),
    /// The deadline passed.
    Late,
    /// Idle connections are asked to close.
    Asked,
}

/// The alarms of one connection.
pub(super) struct Idle<'o> {
    open: &'o Open,
    /// Fires no later than the deadline of a wait, maybe earlier: then it is set anew.
    timer: Pin<Box<Sleep>>,
    /// Whether `timer` was ever set; before that it wakes nobody.
    is_set: bool,
    word: Pin<Box<Notified<'o>>>,
    /// The number of words when `word` was registered; `None` before that.
    words: Option<u64>,
}

impl<'o> Idle<'o> {
    /// Alarms that are not set yet.
    pub(super) fn new(open: &'o Open) -> Self {
        Self {
            open,
            timer: Box::pin(sleep_until(Instant::now())),
            is_set: false,
            word: Box::pin(open.asked_to_close()),
            words: None,
        }
    }

    /// Waits for bytes, until `deadline`; with `closes` also for the word to close.
    pub(super) async fn wait(
        &mut self,
        stream: &mut ClientStream,
        deadline: Instant,
        closes: bool,
    ) -> Waited {
        let mut is_first_look = true;
        poll_fn(|context| {
            if let Poll::Ready(read) = stream.poll_ahead(context) {
                return Poll::Ready(Waited::Read(read));
            }
            if is_first_look {
                is_first_look = false;
                if self.words != Some(self.open.words()) {
                    self.listen(context);
                }
                if self.is_set_for(deadline) {
                    return Poll::Pending;
                }
            } else if closes && self.words != Some(self.open.words()) {
                return Poll::Ready(Waited::Asked);
            }
            self.set_timer(context, deadline).map(|()| Waited::Late)
        })
        .await
    }

    /// Whether the timer will wake this task, which set it in an earlier wait, in time.
    fn is_set_for(&self, deadline: Instant) -> bool {
        self.is_set && !self.timer.is_elapsed() && self.timer.deadline() <= deadline
    }

    /// Registers for the next word.
    fn listen(&mut self, context: &mut Context<'_>) {
        self.words = Some(self.open.words());
        self.word.set(self.open.asked_to_close());
        // Whether a word came meanwhile is told by their number.
        let _ = self.word.as_mut().poll(context);
    }

    fn set_timer(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        loop {
            if !self.is_set || self.timer.is_elapsed() || self.timer.deadline() > deadline {
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                self.timer.as_mut().reset(deadline);
                self.is_set = true;
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
