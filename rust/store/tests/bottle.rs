//! What does the register of bottles keep, and what ends with a bottle?

use bot_bottle_store::{State, Status};
use std::fs;
use std::path::PathBuf;

use crate::place::{Place, decide, proposal};

#[test]
fn a_bottle_is_listed_while_it_runs_and_can_start_again() {
    let place = Place::new();
    let bottles = place.bottles();
    let started = bottles.register("dev", "docker", "mount", &[]).unwrap();
    assert_eq!((started.slug.as_str(), started.backend.as_str(), started.stopped_at), ("dev", "docker", None));
    place.queue("dev").write_proposal(&proposal("x")).unwrap();
    assert_eq!(bottles.list_bottles(true).unwrap()[0].pending, 1);
    assert_eq!(bottles.stop("dev", "done").unwrap(), 1);
    assert_eq!(bottles.stop("dev", "done").unwrap(), 0);
    assert!(bottles.list_bottles(true).unwrap().is_empty());
    assert!(bottles.list_bottles(false).unwrap()[0].stopped_at.is_some());
    let again = bottles.register("dev", "smolmachines", "mount", &[]).unwrap();
    assert_eq!((again.backend.as_str(), again.stopped_at), ("smolmachines", None));
    assert_eq!(bottles.stop("nobody", "").unwrap_err().class(), "NotFoundError");
}

#[test]
fn stopping_withdraws_what_is_pending_and_leaves_what_is_decided() {
    let place = Place::new();
    let inbox = place.inbox();
    place.bottles().register("dev", "docker", "mount", &[]).unwrap();
    let decided = place.queue("dev").write_proposal(&proposal("decided")).unwrap();
    decide(&inbox, &decided, Status::Approved).unwrap();
    let pending = ["one", "another"].map(|text| place.queue("dev").write_proposal(&proposal(text)).unwrap());
    assert_eq!(place.bottles().stop("dev", "bottle stopped").unwrap(), 2);
    for asked in &pending {
        let item = inbox.read(&asked.id).unwrap();
        assert_eq!((item.state.as_str(), item.withdrawn_reason.as_deref()), ("withdrawn", Some("bottle stopped")));
    }
    assert_eq!(inbox.read(&decided.id).unwrap().state, State::Approved);
    assert_eq!(place.audit().verify(None).unwrap().entries, 1);
}

#[test]
fn managed_files_are_settled_when_they_are_declared() {
    let place = Place::new();
    let (bottles, real) = (place.bottles(), place.dir.join("real"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, place.dir.join("link")).unwrap();
    let declare = |path: PathBuf| bottles.register("dev", "docker", "mount", &[("egress-allow".to_owned(), path)]);
    // Reached through a link it is known by the way without.
    let bottle = declare(place.dir.join("link/routes.yaml")).unwrap();
    assert_eq!(bottle.files["egress-allow"], real.join("routes.yaml").to_str().unwrap());
    std::os::unix::fs::symlink("elsewhere", real.join("linked.yaml")).unwrap();
    for refused in ["link/../real/routes.yaml", "missing/routes.yaml", "real/linked.yaml"] {
        let error = declare(place.dir.join(refused)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    assert_eq!(bottles.read_bottle("dev").unwrap().unwrap().files.len(), 1, "a refused declaration changed something");
    assert_eq!(bottles.register("Dev", "docker", "mount", &[]).unwrap_err().exit_code(), 2);
}
