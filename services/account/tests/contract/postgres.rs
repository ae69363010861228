//! What PostgreSQL adds: a database that rejects one command, defaults that would break the service, and databases on which
//! it must not start. SQLite has none of these.

use std::time::Duration;

use account_service::Config;
use clock::Clock;
use postgres::DatabaseUrl;
use serde_json::json;
use test_harness::{InProcess, POSTGRES_URL, at_once, open_event_log, postgres_database, wait_until, with_postgres};

use crate::service::{TestService, account};

/// Far less than a start waits for a server that is away.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn a_command_that_the_database_rejects_fails_alone() {
    const THREADS: usize = 32;
    const EACH: usize = 10;
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    // Its tables are there.
    service.get("/readyz").expect(200);
    // What an operator may add: a constraint (SQLSTATE class 23) and a trigger that raises an error (class P0).
    with_postgres(&url, async |client| {
        client
            .batch_execute(
                "ALTER TABLE account.accounts ADD CHECK (beholder_name <> 'Mallory');
                 CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN RAISE EXCEPTION ''no Trudy here''; END';
                 CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON account.accounts
                     FOR EACH ROW WHEN (new.beholder_name = 'Trudy') EXECUTE FUNCTION public.refuse()",
            )
            .await
    });
    let rejected = |thread: usize| thread.is_multiple_of(8);
    let name = |thread: usize| match thread % 16 {
        0 => "Mallory",
        8 => "Trudy",
        _ => "Bob",
    };
    let ids = at_once(THREADS, &service, |thread, http| {
        let mut ids = Vec::new();
        for _ in 0..EACH {
            let answer = http.post("/account", &json!({"beholder_name": name(thread), "country_code": "US"}));
            match rejected(thread) {
                true => {
                    let text = "the database does not accept this request; the logs tell more";
                    answer.expect_error(500, "storage_rejected", text, None);
                }
                false => ids.push(answer.expect(201)["id"].as_str().expect("an id").to_owned()),
            }
        }
        ids
    })
    .concat();
    // Changes lock the accounts first, so they are another transaction.
    at_once(THREADS, &service, |thread, http| {
        let target = account(&ids[thread]);
        let change = json!({"beholder_name": name(thread), "status": "BLOCKED"});
        http.send_json("PATCH", &target, &change).expect(if rejected(thread) { 500 } else { 200 });
    });
    service.get("/readyz").expect(200);
    let honest = THREADS - THREADS / 8;
    assert_eq!(service.list("")["total"], honest * EACH);
    assert_eq!(service.list("?status=BLOCKED")["total"], honest);
    service.log_of(honest * EACH + honest);
}

#[test]
fn a_read_that_fails_shows_in_readyz_until_it_works_again() {
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    let id = service.new_id();
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER TABLE account.{from} RENAME TO {to}");
        with_postgres(&url, async |client| client.batch_execute(&sql).await);
    };
    rename("accounts", "renamed");
    service.get(&account(&id)).expect(503);
    // A probe follows the failed read, and the server answers it: other reads work.
    let warnings = wait_until("other reads work", || {
        let report = service.get("/readyz");
        (report.status == 200).then(|| report.body["warnings"].to_string())
    });
    assert!(warnings.contains("some reads fail") && warnings.contains("does not exist"), "{warnings}");
    rename("renamed", "accounts");
    service.get(&account(&id)).expect(200);
}

#[test]
fn no_default_of_the_database_is_relied_on() {
    const THREADS: usize = 16;
    const EACH: usize = 25;
    let service = TestService::start();
    let DatabaseUrl::Postgres(url) = service.database() else { return };
    let service = service.restart_between(|_| {
        with_postgres(&url, async |client| {
            // What is in force when a transaction of accounts commits.
            client
                .batch_execute(
                    "CREATE TABLE public.seen (isolation text, synchronous_commit text);
                     CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
                         INSERT INTO public.seen VALUES (
                             current_setting(''transaction_isolation''), current_setting(''synchronous_commit''));
                         RETURN NULL;
                     END';
                     CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE ON account.accounts
                         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note()",
                )
                .await?;
            let name: String = client.query_one("SELECT current_database()", &[]).await?.get(0);
            for default in [
                "default_transaction_isolation = 'serializable'",
                "default_transaction_read_only = on",
                "default_transaction_deferrable = on",
                "synchronous_commit = off",
                "lock_timeout = '1ms'",
                "statement_timeout = '3ms'",
                "idle_in_transaction_session_timeout = '1ms'",
                "idle_session_timeout = '2s'",
                "search_path = 'nowhere'",
                "client_encoding = 'LATIN1'",
                "TimeZone = 'Asia/Kathmandu'",
                "DateStyle = 'SQL, DMY'",
                "bytea_output = 'escape'",
                "standard_conforming_strings = off",
                "extra_float_digits = -15",
            ] {
                client.batch_execute(&format!("ALTER DATABASE {name} SET {default}")).await?;
            }
            Ok(())
        });
    });
    let another = service.start_another();
    wait_until("the other instance is ready", || (another.http().get("/readyz").status == 200).then_some(()));
    let shared = service.create("李雷", "US").text("id").to_owned();
    let both = [&*service, another.http()];
    std::thread::scope(|scope| {
        for http in both {
            let shared = &shared;
            scope.spawn(move || {
                at_once(THREADS, http, |thread, http| {
                    for number in 0..EACH {
                        http.post("/account", &json!({"beholder_name": "李雷", "country_code": "US"})).expect(201);
                        // All of them change one account.
                        let change = json!({"beholder_name": format!("李雷 {thread} {number}")});
                        http.send_json("PATCH", &account(shared), &change).expect(200);
                    }
                });
            });
        }
    });
    let count = 2 * THREADS * EACH + 1;
    assert_eq!(service.list("")["total"], count);
    service.log_of(count);
    with_postgres(&url, async |client| {
        let sql = "SELECT DISTINCT isolation, synchronous_commit FROM public.seen";
        let seen: Vec<_> = client.query(sql, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(seen, [("read committed".to_owned(), "on".to_owned())]);
        Ok(())
    });
}

#[test]
fn a_database_or_a_setting_that_waiting_does_not_mend_stops_the_start() {
    let Ok(server) = std::env::var(POSTGRES_URL) else { return };
    let (address, _) = server.rsplit_once('/').expect("a URL with a database");
    let (_, host) = address.rsplit_once('@').expect("a user");
    let database = postgres_database(&server);
    let name = format!("latin1_{}", std::process::id());
    let role = format!("reader_{}", std::process::id());
    with_postgres(&server, async |client| {
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await?;
        let locale = "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
        client.batch_execute(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' {locale}")).await?;
        client.batch_execute(&format!("DROP ROLE IF EXISTS {role}")).await?;
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await
    });
    let (_, own) = database.rsplit_once('/').expect("a URL with a database");
    for (url, reason) in [
        (format!("{address}/{name}"), "has the encoding LATIN1"),
        (format!("{address}/nowhere"), "does not exist"),
        (format!("postgres://nobody@{host}/{own}"), "does not exist"),
        (format!("postgres://{role}@{host}/{own}"), "permission denied"),
        (format!("{database}?sslmode=require"), "server does not support TLS"),
        (format!("{database}?sslmode=verify-full"), "server does not support TLS"),
        (format!("{database}?channel_binding=require"), "did not use channel binding"),
    ] {
        let started = std::time::Instant::now();
        let refused = refusal(&url);
        assert!(refused.contains(reason) && refused.lines().count() == 1, "{url}: {refused}");
        assert!(started.elapsed() < AT_ONCE, "{url}: {:?}", started.elapsed());
    }
    with_postgres(&server, async |client| {
        client.batch_execute(&format!("DROP DATABASE {name}")).await?;
        client.batch_execute(&format!("DROP ROLE {role}")).await
    });
}

/// What a service says that does not start on the database at `url`.
fn refusal(url: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_event_log(folder.path());
    let database = DatabaseUrl::Postgres(url.to_owned());
    let config =
        Config { database, http: Default::default(), clock: Clock::system(), backlog_published: Default::default() };
    let mut service = InProcess::start(|listener, shutdown| account_service::run(config, listener, log, shutdown));
    service.wait().expect_err("it does not start").to_string()
}
