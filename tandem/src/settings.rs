//! The settings of the all-in-one (docs/operations/configure.md).

use std::path::PathBuf;
use std::time::Duration;

use access::Scopes;
use account_events::AccountId;
use clap::{Args, Parser, Subcommand, ValueEnum};
use http_server::HttpArgs;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use postgres::DatabaseUrl;
use process::{CommonArgs, KafkaArgs};

use crate::client::{self, Service};
use crate::quarantine::Place;

/// Tandem, whole: the account service, the card service and an event log between them, in one process.
///
/// Settings are flags, environment variables, or lines of a .env file, in this order of precedence. Nothing needs to be
/// set. Without KAFKA_BROKERS the events are kept in an embedded event log in DATA_DIR.
#[derive(Debug, Parser)]
#[command(name = "tandem", version)]
pub(crate) struct Settings {
    /// What to do instead of serving
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The account service's port; 0 for any
    #[arg(long, env = "ACCOUNT_PORT", default_value_t = 8081)]
    pub(crate) account_port: u16,

    /// The card service's port; 0 for any
    #[arg(long, env = "CARD_PORT", default_value_t = 8082)]
    pub(crate) card_port: u16,

    #[command(flatten)]
    pub(crate) kafka: KafkaArgs,

    /// The consumer group whose members share the work of closing the cards of deleted accounts
    #[arg(long, env = "KAFKA_GROUP_ID", default_value = card_service::DEFAULT_GROUP)]
    pub(crate) kafka_group_id: String,

    /// Where the accounts are kept: sqlite:PATH, or postgres://USER:PASSWORD@HOST:PORT/DATABASE [default: account.db in DATA_DIR]
    #[arg(long, global = true, env = "ACCOUNT_DATABASE_URL", hide_env_values = true)]
    pub(crate) account_database_url: Option<DatabaseUrl>,

    /// Where the cards are kept: sqlite:PATH, or postgres://USER:PASSWORD@HOST:PORT/DATABASE [default: card.db in DATA_DIR]
    #[arg(long, env = "CARD_DATABASE_URL", hide_env_values = true)]
    pub(crate) card_database_url: Option<DatabaseUrl>,

    /// How old the account view may be, in seconds, while the event log is away, before cards are refused with 503; any
    /// age if it is not set
    #[arg(long, env = "VIEW_MAX_AGE_SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) view_max_age_seconds: Option<u64>,

    /// How many event streams (GET /events) may be open at once; more are answered 503
    #[arg(long, env = "MAX_EVENT_STREAMS", default_value_t = card_service::DEFAULT_MAX_EVENT_STREAMS)]
    pub(crate) max_event_streams: u16,

    /// Read the whole event log at the start instead of the checkpoint; records that can be decoded now leave the quarantine
    #[arg(long, env = "REBUILD_VIEW")]
    pub(crate) rebuild_view: bool,

    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    pub(crate) http: HttpArgs,
}

/// The settings of `tandem verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Where the account service is; the first of several that answers is asked
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub(crate) account_url: Vec<String>,

    /// Where a card service is; every instance has a view of its own, so name each
    #[arg(long, default_value = "http://127.0.0.1:8082")]
    pub(crate) card_url: Vec<String>,

    /// A PEM file with the CAs of https URLs; without it those of the system are trusted
    #[arg(long)]
    pub(crate) ca_file: Option<PathBuf>,

    /// Sent to the services as Authorization: Bearer
    #[arg(long, env = "TANDEM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// Publish the state of the accounts that differ again, so that the log and the views follow the table
    #[arg(long)]
    pub(crate) repair: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// How long to wait, in seconds, for a service or the log that does not answer, and for a view that is behind
    #[arg(long, default_value_t = 60)]
    pub(crate) wait_seconds: u64,
}

/// A card service, and how its answers are printed.
#[derive(Debug, Args)]
pub(crate) struct CardServiceArgs {
    /// Where the card service is
    #[arg(long, default_value = "http://127.0.0.1:8082")]
    card_url: String,

    /// A PEM file with the CAs of an https URL; without it those of the system are trusted
    #[arg(long)]
    ca_file: Option<PathBuf>,

    /// Sent to the service as Authorization: Bearer
    #[arg(long, env = "TANDEM_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl CardServiceArgs {
    /// A client for the service. Says on stderr what it talks to.
    pub(crate) fn connect(&self) -> anyhow::Result<Service> {
        eprintln!("card service: {}", self.card_url);
        let agent = client::agent([self.card_url.as_str()].into_iter(), self.ca_file.as_deref())?;
        Ok(Service::new(agent, &self.card_url, self.token.clone(), PATIENCE))
    }
}

/// How long a command repeats a call while the service is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// The arguments of `tandem events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with new events until the command is interrupted
    #[arg(long)]
    pub(crate) follow: bool,

    /// Only the events of this account
    #[arg(long)]
    pub(crate) account: Option<AccountId>,

    #[command(flatten)]
    pub(crate) service: CardServiceArgs,
}

/// The arguments of `tandem quarantine`.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the records in quarantine
    List {
        #[command(flatten)]
        service: CardServiceArgs,
    },

    /// Show a record: its key and value as text, or in base64
    Show {
        /// The partition and the offset of the record, such as 0:17
        place: Place,

        #[command(flatten)]
        service: CardServiceArgs,
    },

    /// Acknowledge a record, which removes it
    Acknowledge {
        /// The partition and the offset of the record, such as 0:17
        place: Place,

        #[command(flatten)]
        service: CardServiceArgs,
    },
}

impl QuarantineCommand {
    pub(crate) fn service(&self) -> &CardServiceArgs {
        match self {
            QuarantineCommand::List { service }
            | QuarantineCommand::Show { service, .. }
            | QuarantineCommand::Acknowledge { service, .. } => service,
        }
    }
}

/// The arguments of `tandem erase`.
#[derive(Debug, Args)]
pub(crate) struct EraseArgs {
    /// The id of the account
    pub(crate) account_id: AccountId,

    /// Where the account service is
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    pub(crate) account_url: String,

    /// A PEM file with the CAs of an https URL; without it those of the system are trusted
    #[arg(long)]
    pub(crate) ca_file: Option<PathBuf>,

    /// Sent to the service as Authorization: Bearer; it needs the scope admin
    #[arg(long, env = "TANDEM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// The arguments of `tandem recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// What becomes of accounts whose rows are lost, so that only the event log knows them
    #[arg(long, value_enum, default_value = "keep")]
    pub(crate) lost: LostAccounts,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LostAccounts {
    /// They are listed, and stay as they are
    Keep,
    /// They are blocked, and get no more cards
    Block,
}

/// The arguments of `tandem keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, add its entry to the file, and print the key, which is kept nowhere
    Create {
        /// The file of API keys, which is created if it is missing
        #[arg(long)]
        file: PathBuf,

        /// The name of the caller, which history entries and the audit have; one caller may have several keys
        #[arg(long)]
        name: String,

        /// What the key allows, separated by commas: accounts:read, accounts:write, cards:read, cards:write, events:read, metrics:read, admin
        #[arg(long)]
        scopes: Scopes,

        /// How long the key is valid, such as 90d or 12h; for ever if it is not set
        #[arg(long, value_parser = parse_validity)]
        expires: Option<SignedDuration>,
    },

    /// List the entries of the file
    List {
        /// The file of API keys
        #[arg(long)]
        file: PathBuf,
    },

    /// Remove the entry of a key from the file; running services refuse the key within 5 seconds
    Revoke {
        /// The file of API keys
        #[arg(long)]
        file: PathBuf,

        /// The id of the key: the part between its first and its last underscore
        id: String,
    },
}

/// Parses a time span such as `90d`, which is longer than nothing. A day has 24 hours.
fn parse_validity(text: &str) -> Result<SignedDuration, String> {
    let span: Option<Span> = text.parse().ok();
    let validity = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    validity
        .filter(|validity| validity.is_positive())
        .ok_or_else(|| "expected a time span such as 90d or 12h".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, list and revoke API keys, for AUTH=keys
    ///
    /// The file is replaced as a whole, with mode 0600, so run the command as the user that the services run as. Services that use the
    /// file read it again within 5 seconds.
    #[command(subcommand)]
    Keys(KeysCommand),

    /// Erase the name of a deleted account
    ///
    /// The running account service replaces the name, in the stored answers to requests with idempotency keys, too. Repeating it does no
    /// harm. docs/operations/erase.md says where copies of the name remain, and until when.
    Erase(EraseArgs),

    /// Join an account database that was restored to an older copy, or copied, with the event log
    ///
    /// Stop the account service first; on PostgreSQL its instances may run while they are superseded. For each account the newer state
    /// wins, and DELETED always. What the log knows better is adopted, and what the log lacks is published. A recovery that was
    /// interrupted is run again. It uses the service's own settings.
    Recover(RecoverArgs),

    /// Have the state of every account published again, as after a topic was lost
    ///
    /// It is safe while services run, and they need not: the request is kept in the account database that
    /// ACCOUNT_DATABASE_URL names (or account.db in DATA_DIR), and whichever instance publishes from there meets it.
    Resync,

    /// Print the account events of the log, as a card service reads them
    ///
    /// Ends with the last event that the log had at the start, unless it follows. It needs the scope events:read.
    Events(EventsArgs),

    /// List, show and acknowledge the records that a card service cannot decode
    ///
    /// It needs the scope admin.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),

    /// Compare the account table, the event log and the account view of each card service
    ///
    /// It is safe while everything runs: what is in flight is no difference. The log is read from Kafka where KAFKA_BROKERS says, or else
    /// through the first card service. The exit status is 0 if all are equal, 1 if accounts differ, and 2 if they could not be compared.
    Verify(VerifyArgs),
}
