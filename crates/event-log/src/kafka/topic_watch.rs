//! Watches the topic's settings: at the start, each minute, and when a client of the log has lost the topic. An operator or a
//! topic that was made anew may change them at any time. Each problem is logged once when it appears and once when it is gone.
//! Nothing is altered: settings that harm may be an operator's choice.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use super::client::{Events, partition_count};
use super::topic::{self, TopicSettings};
use super::{KafkaSettings, deadline};

/// How often the settings are asked for. Each time costs a connection.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How long to wait before looking again: whoever asks for it may do so at each of many failures.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
/// How long the brokers may take to tell the topic's settings. Those that do not let us know say nothing at all.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of the topic's settings.
#[derive(Default)]
pub(super) struct TopicState {
    settings: Mutex<Option<TopicSettings>>,
    problems: Mutex<Vec<String>>,
}

impl TopicState {
    /// What is wrong with them.
    pub(super) fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bytes a batch may have at most, if that is known.
    pub(super) fn max_message_bytes(&self) -> Option<u64> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.max_message_bytes
    }

    /// Whether the topic is known to delete nothing by itself but what a newer record of the same key replaces.
    pub(super) fn is_compacted(&self) -> bool {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.as_ref().is_some_and(|settings| settings.cleanup_policy == "compact")
    }

    fn report(&self, found: Vec<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().filter(|problem| !problems.contains(problem)).for_each(|problem| tracing::warn!("{problem}"));
        for gone in problems.iter().filter(|problem| !found.contains(problem)) {
            tracing::info!(problem = gone, "a problem with the topic's settings is gone");
        }
        *problems = found;
    }
}

/// The thread that watches. It ends when this is dropped.
pub(super) struct TopicWatch(SyncSender<()>);

impl TopicWatch {
    pub(super) fn start(
        settings: KafkaSettings,
        client: Arc<BaseConsumer<Events>>,
        state: Arc<TopicState>,
    ) -> std::io::Result<TopicWatch> {
        let (sender, again) = sync_channel(1);
        Builder::new().name("topic-watch".to_owned()).spawn(move || watch(&settings, &client, &state, &again))?;
        Ok(TopicWatch(sender))
    }

    /// Has the settings looked at now.
    pub(super) fn look(&self) {
        // A full channel already says it.
        let _ = self.0.try_send(());
    }
}

fn watch(settings: &KafkaSettings, client: &BaseConsumer<Events>, state: &TopicState, again: &Receiver<()>) {
    let (mut has_looked, mut partitions) = (false, None);
    loop {
        match topic::settings(settings, deadline(LOOK_TIMEOUT)) {
            Ok(found) => {
                state.report(found.problems(&settings.topic));
                *state.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            }
            // Brokers that are away say nothing new.
            Err(problem) if !has_looked => state.report(vec![problem]),
            Err(_) => {}
        }
        has_looked = true;
        if let Ok(count) = partition_count(client, &settings.topic, deadline(LOOK_TIMEOUT))
            && let Some(before) = partitions.replace(count)
            && before != count
        {
            tracing::warn!(
                "topic {} has {count} partitions and had {before}: later events of an account may be in another partition \
                 than the earlier ones, and their versions decide which counts",
                settings.topic
            );
        }
        match again.recv_timeout(LOOK_INTERVAL) {
            Ok(()) => thread::sleep(LOOK_PAUSE),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
