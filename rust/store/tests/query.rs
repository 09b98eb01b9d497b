//! What may other programs read, and what may they write?

use std::time::{Duration, Instant};

use bot_bottle_store::{Error, Params, Row, SqlValue, Step};

use crate::place::{Place, proposal};

const LIMIT: Duration = Duration::from_secs(10);

fn none() -> Params {
    Params::Positional(Vec::new())
}

fn ask(place: &Place, sql: &str) -> Result<Vec<Row>, Error> {
    place.database().query(sql, &none(), LIMIT)
}

fn asked() -> Place {
    let place = Place::new();
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    place
}

#[test]
fn any_reading_is_answered_with_names_and_values() {
    let place = asked();
    let rows = ask(&place, "SELECT state, seq AS n, NULL AS none, x'00' AS bytes FROM proposals").unwrap();
    let expected: Row = [
        ("state", SqlValue::Text("pending".to_owned())),
        ("n", SqlValue::Integer(1)),
        ("none", SqlValue::Null),
        ("bytes", SqlValue::Blob(vec![0])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(rows, [expected]);
    for sql in [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n",
        "SELECT p.id FROM proposals p LEFT JOIN audit_entries a ON a.proposal_id = p.id",
        "EXPLAIN QUERY PLAN SELECT * FROM proposals",
        "PRAGMA table_info(proposals)",
        "SELECT name FROM pragma_table_info('proposals')",
        "PRAGMA database_list",
        "SELECT json_object('a', count(*)) FROM proposals -- and a comment",
        "VALUES (1);",
    ] {
        assert!(!ask(&place, sql).unwrap_or_else(|error| panic!("{sql}: {error}")).is_empty(), "{sql}");
    }
}

#[test]
fn parameters_go_by_place_or_by_name() {
    let place = asked();
    let db = place.database();
    let text = |value: &str| SqlValue::Text(value.to_owned());
    let found = |sql: &str, params: Params| db.query(sql, &params, LIMIT).map(|rows| rows.len());
    assert_eq!(found("SELECT 1 FROM proposals WHERE state = ?", Params::Positional(vec![text("pending")])), Ok(1));
    for name in ["state", ":state"] {
        let named = Params::Named(vec![(name.to_owned(), text("' OR 1 --"))]);
        assert_eq!(found("SELECT 1 FROM proposals WHERE state = :state", named), Ok(0));
    }
    for (sql, params) in [
        ("SELECT ?", none()),
        ("SELECT 1", Params::Positional(vec![SqlValue::Null])),
        ("SELECT :a, :b", Params::Named(vec![("a".to_owned(), SqlValue::Null)])),
        ("SELECT :a", Params::Named(vec![("b".to_owned(), SqlValue::Null)])),
    ] {
        assert_eq!(found(sql, params).unwrap_err().exit_code(), 2, "{sql}");
    }
}

#[test]
fn nothing_but_reading_gets_through() {
    let place = asked();
    let elsewhere = place.dir.join("elsewhere.db").display().to_string();
    let before = place.shell("SELECT * FROM proposals; PRAGMA journal_mode; SELECT * FROM sqlite_schema");
    for sql in [
        "DELETE FROM proposals",
        "UPDATE proposals SET waiting_until = ''",
        "INSERT INTO aliases VALUES ('a', 1, '', '', NULL)",
        "INSERT INTO aliases VALUES ('a', 1, '', '', NULL) RETURNING *",
        "WITH x AS (SELECT 1) DELETE FROM proposals",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x (y)",
        "DROP TABLE proposals",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "VACUUM",
        &format!("VACUUM INTO '{elsewhere}'"),
        &format!("ATTACH '{elsewhere}' AS other"),
        "DETACH main",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA optimize",
        "PRAGMA incremental_vacuum",
        "ANALYZE",
        "REINDEX",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM proposals",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "SELECT * FROM missing",
        "",
        "-- nothing",
    ] {
        let error = ask(&place, sql).expect_err(sql);
        assert_eq!(error.exit_code(), 2, "{sql}: {error}");
    }
    assert_eq!(place.shell("SELECT * FROM proposals; PRAGMA journal_mode; SELECT * FROM sqlite_schema"), before);
    assert!(!place.names().contains(&"elsewhere.db".to_owned()));
}

#[test]
fn a_query_that_takes_too_long_is_stopped() {
    let place = asked();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let start = Instant::now();
    let error = place.database().query(sql, &none(), Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, Error::QueryTimeout { .. }), "{error}");
    assert!((Duration::from_millis(100)..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

fn forge(place: &Place) {
    let up = "CREATE TABLE forge_jobs (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT".to_owned();
    place.database().migrate("forge", &[Step { up, down: "DROP TABLE forge_jobs".to_owned() }], None).unwrap();
}

#[test]
fn another_program_s_transaction_is_all_or_nothing() {
    let place = asked();
    forge(&place);
    let db = place.database();
    {
        let mut dropped = db.transaction().unwrap();
        dropped.execute("INSERT INTO forge_jobs (name) VALUES ('lost')", &none()).unwrap();
    }
    let mut kept = db.transaction().unwrap();
    let name = Params::Positional(vec![SqlValue::Text("kept".to_owned())]);
    let rows = kept.execute("INSERT INTO forge_jobs (name) VALUES (?) RETURNING id", &name).unwrap();
    assert_eq!(rows[0][0].1, SqlValue::Integer(1));
    // It reads ours in the same snapshot, and nobody reads its rows before it commits.
    let joined = kept.execute("SELECT p.id, name FROM proposals p, forge_jobs", &none()).unwrap();
    assert_eq!((joined.len(), place.count("forge_jobs")), (1, 0));
    kept.commit().unwrap();
    assert_eq!(place.shell("SELECT name FROM forge_jobs"), "kept");
}

#[test]
fn another_program_s_transaction_keeps_off_our_tables() {
    let place = asked();
    forge(&place);
    let before = place.shell("SELECT * FROM proposals; SELECT sql FROM sqlite_schema ORDER BY name");
    let mut transaction = place.database().transaction().unwrap();
    transaction
        .execute("CREATE TRIGGER sly AFTER INSERT ON forge_jobs BEGIN DELETE FROM proposals; END", &none())
        .unwrap();
    transaction.execute("CREATE VIEW sly_view AS SELECT 1 AS x", &none()).unwrap();
    transaction
        .execute(
            "CREATE TRIGGER sly_too INSTEAD OF INSERT ON sly_view BEGIN UPDATE responses SET notes = ''; END",
            &none(),
        )
        .unwrap();
    for sql in [
        "DELETE FROM proposals",
        "delete from \"PROPOSALS\"",
        "DELETE FROM main.proposals",
        "INSERT INTO forge_jobs (name) VALUES ('fires the trigger')",
        "INSERT INTO sly_view VALUES (1)",
        "UPDATE schema_versions SET version = 99",
        "INSERT INTO audit_entries SELECT * FROM audit_entries",
        "INSERT INTO grants SELECT * FROM grants",
        "DROP TABLE audit_entries",
        "DROP INDEX proposals_pending",
        "DROP TRIGGER responses_are_final",
        "ALTER TABLE proposals RENAME TO gone",
        "ALTER TABLE proposals RENAME COLUMN state TO gone",
        "CREATE INDEX more ON proposals (tool)",
        "CREATE TRIGGER more AFTER INSERT ON proposals BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER more BEFORE INSERT ON main.proposals BEGIN SELECT RAISE(IGNORE); END",
        "COMMIT",
        "ROLLBACK",
        "END",
        "ATTACH ':memory:' AS other",
        "PRAGMA writable_schema = ON",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA recursive_triggers = OFF",
        "PRAGMA defer_foreign_keys = ON",
        "INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)",
        "SELECT 1; DELETE FROM proposals",
    ] {
        let error = transaction.execute(sql, &none()).expect_err(sql);
        assert_eq!(error.exit_code(), 2, "{sql}: {error}");
    }
    transaction.execute("DROP VIEW sly_view", &none()).unwrap();
    transaction.execute("DROP TRIGGER sly", &none()).unwrap();
    transaction.execute("INSERT INTO forge_jobs (name) VALUES ('fine')", &none()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(place.shell("SELECT * FROM proposals; SELECT sql FROM sqlite_schema ORDER BY name"), before);
    assert_eq!(place.count("forge_jobs"), 1);
}
