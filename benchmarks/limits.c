/* How fast can the same work be? A C program with prepared statements on bot-bottle's own schema, and bare hops.
 *
 *   limits actor DATABASE      the protocol of actor.py, on standard input and output
 *   limits inotify COUNT       a touched file wakes a process: nanoseconds, one line each
 *   limits futex COUNT         the same through shared memory
 *   limits append COUNT FILE   4 KiB written and synced at the growing end of a file
 *   limits overwrite COUNT FILE    the same inside a file that has its size
 *
 * It commits the rows that a proposal and a decision leave behind and none of the checks before them: no cap, no
 * coalescing, no hash is computed. It is a floor, not a rival. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "limits: %s\n", what);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(int64_t when) {
    struct timespec t = {when / 1000000000, when % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

/* ---- bare hops and bare syncs ---- */

struct shared {
    _Atomic uint32_t word;
    _Atomic int64_t woken;
};

static void hops(int count, int by_futex) {
    struct shared *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char bell[] = "/tmp/limits-bell-XXXXXX";
    close(mkstemp(bell));
    pid_t child = fork();
    if (child == 0) {
        int inotify = inotify_init1(IN_CLOEXEC);
        inotify_add_watch(inotify, bell, IN_ATTRIB);
        for (int i = 0; i < count; i++) {
            char event[512];
            if (by_futex) {
                while (atomic_load(&shared->word) == (uint32_t)i)
                    syscall(SYS_futex, &shared->word, FUTEX_WAIT, i, NULL, NULL, 0);
            } else if (read(inotify, event, sizeof event) < 0) {
                die("inotify");
            }
            atomic_store(&shared->woken, now());
        }
        _exit(0);
    }
    sleep_until(now() + 50000000);
    for (int i = 0; i < count; i++) {
        atomic_store(&shared->woken, 0);
        sleep_until(now() + 2000000 + i % 7 * 300000); /* the other sleeps again */
        int64_t start = now();
        if (by_futex) {
            atomic_store(&shared->word, i + 1);
            syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
        } else {
            utimensat(AT_FDCWD, bell, NULL, 0);
        }
        while (atomic_load(&shared->woken) == 0)
            sleep_until(now() + 100000);
        printf("%lld\n", (long long)(atomic_load(&shared->woken) - start));
    }
    waitpid(child, NULL, 0);
    unlink(bell);
}

static void syncs(int count, const char *path, int overwrite) {
    static char page[4096];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) die(path);
    for (int i = 0; overwrite && i < 1000; i++)
        if (write(fd, page, sizeof page) != sizeof page) die("write");
    fsync(fd);
    for (int i = 0; i < count; i++) {
        int64_t start = now();
        off_t at = (off_t)(overwrite ? i % 1000 : i) * (off_t)sizeof page;
        if (pwrite(fd, page, sizeof page, at) != sizeof page || fdatasync(fd)) die("sync");
        printf("%lld\n", (long long)(now() - start));
    }
}

/* ---- the same work ---- */

static sqlite3 *db;

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL)) die(sqlite3_errmsg(db));
    return statement;
}

/* Runs a statement that returns no row. */
static void run(sqlite3_stmt *statement) {
    if (sqlite3_step(statement) != SQLITE_DONE) die(sqlite3_errmsg(db));
    sqlite3_reset(statement);
}

static void text(sqlite3_stmt *statement, int index, const char *value) {
    sqlite3_bind_text(statement, index, value, -1, SQLITE_STATIC);
}

/* As long as a key's id and a signature are. */
#define SIGNED "'0123456789abcdef', hex(zeroblob(44))"

static sqlite3_stmt *begin, *commit, *propose, *changed, *decide, *respond, *last, *append, *grant, *look, *list, *tail;
static char payload[1024], hash[65], bell[4096];
static const char *const at = "2026-01-31T12:00:00.000000Z";

static void open_database(const char *path) {
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL)) die(path);
    sqlite3_busy_timeout(db, 30000);
    if (sqlite3_exec(db, "PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA recursive_triggers=ON", 0, 0, 0))
        die(sqlite3_errmsg(db));
    begin = prepare("BEGIN IMMEDIATE");
    commit = prepare("COMMIT");
    propose = prepare("INSERT INTO proposals (id, queue_key, bottle_slug, tool, payload_sha256, justification,"
                      " arrival_timestamp, proposed_file) VALUES (?1, ?2, ?2, 'egress-allow', ?3, 'because', ?4, ?5)");
    changed = prepare("INSERT INTO changes (kind, proposal_id, bottle_slug, tool, at)"
                      " VALUES (?1, ?2, ?3, 'egress-allow', ?4)");
    decide = prepare("UPDATE proposals SET state = 'approved' WHERE id = ?1 AND state = 'pending' RETURNING seq");
    respond = prepare("INSERT INTO responses (proposal_seq, status, notes, payload_sha256, final_sha256, decided_by,"
                      " surface, decided_at, review_sha256, key_id, signature)"
                      " VALUES (?1, 'approved', '', ?2, ?2, 'root', 'api', ?3, ?2, " SIGNED ")");
    last = prepare("SELECT seq, entry_hash FROM audit_entries ORDER BY seq DESC LIMIT 1");
    append = prepare("INSERT INTO audit_entries (seq, timestamp, bottle_slug, component, operator_action,"
                     " operator_notes, justification, diff, decided_by, surface, prev_hash, entry_hash)"
                     " VALUES (?1, ?2, ?3, 'egress-allow', 'approved', '', 'because', '', 'root', 'api', ?4, ?4)");
    grant = prepare("INSERT INTO grants (id, bottle_slug, tool, fingerprint, scope, uses_left, proposal_id, created_at,"
                    " created_by, key_id, signature)"
                    " VALUES (?1, ?2, 'egress-allow', 'api.example.com', 'uses', 3, ?1, ?3, 'root', " SIGNED ")");
    look = prepare("SELECT r.status FROM proposals p JOIN responses r ON r.proposal_seq = p.seq WHERE p.id = ?1");
    list = prepare("SELECT id, bottle_slug, tool, proposed_file, justification, arrival_timestamp, payload_sha256"
                   " FROM proposals INDEXED BY proposals_pending"
                   " WHERE state = 'pending' AND queue_key = 'waiting'");
    tail = prepare("SELECT * FROM audit_entries WHERE bottle_slug = 'b7' ORDER BY seq DESC LIMIT 100");
    memset(hash, '0', 64);
    memset(payload, 'x', 600);
}

/* One proposal, durably; its id is left in `id`. Names differ from those of every other process. */
static void ask(char id[40]) {
    static int count;
    char queue[40];
    snprintf(id, 40, "%08x-0000-7000-8000-%012x", getpid(), count);
    snprintf(queue, sizeof queue, "c%d-%d", getpid(), count / 20);
    snprintf(hash, sizeof hash, "%064x", count++);
    run(begin);
    text(propose, 1, id), text(propose, 2, queue), text(propose, 3, hash), text(propose, 4, at), text(propose, 5, payload);
    run(propose);
    text(changed, 1, "proposed"), text(changed, 2, id), text(changed, 3, queue), text(changed, 4, at);
    run(changed);
    run(commit);
}

static void audit(const char *slug) {
    char head[65];
    memset(head, '0', 64), head[64] = 0;
    sqlite3_int64 seq = 0;
    if (sqlite3_step(last) == SQLITE_ROW) {
        seq = sqlite3_column_int64(last, 0);
        memcpy(head, sqlite3_column_text(last, 1), 64);
    }
    sqlite3_reset(last);
    sqlite3_bind_int64(append, 1, seq + 1);
    text(append, 2, at), text(append, 3, slug), text(append, 4, head);
    run(append);
}

static void answer(const char *id, int with_grant) {
    run(begin);
    text(decide, 1, id);
    if (sqlite3_step(decide) != SQLITE_ROW) die("not pending");
    sqlite3_bind_int64(respond, 1, sqlite3_column_int64(decide, 0));
    sqlite3_reset(decide);
    text(respond, 2, hash), text(respond, 3, at);
    run(respond);
    audit("c");
    if (with_grant) {
        text(grant, 1, id), text(grant, 2, "c"), text(grant, 3, at);
        run(grant);
        audit("c");
    }
    text(changed, 1, "approved"), text(changed, 2, id), text(changed, 3, "c"), text(changed, 4, at);
    run(changed);
    run(commit);
    utimensat(AT_FDCWD, bell, NULL, 0);
}

static void wait_for(const char *id) {
    static int inotify; /* kept: closing one takes the kernel 10 ms and more */
    char event[512];
    if (!inotify) inotify = inotify_init1(IN_CLOEXEC);
    if (inotify_add_watch(inotify, bell, IN_ATTRIB) < 0) die(bell);
    for (int answered = 0; !answered;) {
        text(look, 1, id);
        answered = sqlite3_step(look) == SQLITE_ROW;
        sqlite3_reset(look);
        if (!answered && read(inotify, event, sizeof event) < 0) die("inotify");
    }
}

static int rows(sqlite3_stmt *statement) {
    int count = 0;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(statement); i++)
            sqlite3_column_text(statement, i);
        count++;
    }
    sqlite3_reset(statement);
    return count;
}

/* Provided by synced.c, which is preloaded: see there. */
__attribute__((weak)) int64_t synced_count(void);
__attribute__((weak)) int64_t synced_since(int64_t);

static void actor(const char *path) {
    char line[256], id[64];
    srand48(getpid());
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    open_database(path);
    snprintf(bell, sizeof bell, "%s-limits-bell", path);
    close(open(bell, O_WRONLY | O_CREAT, 0600));
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        long long start, seconds_ns;
        double per_second;
        int count, size;
        if (!strncmp(line, "ask", 3)) {
            ask(id);
            printf("%s", id);
        } else if (sscanf(line, "wait %63s", id) == 1) {
            wait_for(id);
            printf("%lld", (long long)now());
        } else if (sscanf(line, "answer %63s", id) == 1) {
            int64_t called = now();
            answer(id, 0);
            int64_t returned = now(), synced = synced_since ? synced_since(called) : 0;
            printf("%lld %lld %lld", (long long)called, (long long)synced, (long long)returned);
        } else if (sscanf(line, "write %lld %lld %lf", &start, &seconds_ns, &per_second) == 3) {
            int64_t syncs = synced_count ? synced_count() : 0, took[200000];
            count = 0;
            for (sleep_until(start); count < 200000 && now() < start + seconds_ns; count++) {
                if (per_second > 0) sleep_until(start + (int64_t)((count + drand48()) * 1e9 / per_second));
                int64_t called = now();
                ask(id);
                took[count] = now() - called;
            }
            printf("%lld 0", (long long)((synced_count ? synced_count() : 0) - syncs));
            for (int i = 0; i < count; i++) printf(" %lld", (long long)took[i]);
        } else if (sscanf(line, "decide %d", &count) == 1) {
            while (count--) {
                ask(id);
                int64_t called = now();
                answer(id, 1);
                printf(" %lld", (long long)(now() - called));
            }
        } else if (sscanf(line, "append %d %d", &size, &count) == 2) {
            while (count--) {
                int64_t called = now();
                run(begin);
                for (int i = 0; i < size; i++) audit("c");
                run(commit);
                printf(" %lld", (long long)(now() - called));
            }
        } else if (sscanf(line, "list %d", &count) == 1 || sscanf(line, "tail %d", &count) == 1) {
            while (count--) {
                int64_t called = now();
                if (rows(line[0] == 'l' ? list : tail) != (line[0] == 'l' ? 10 : 100)) die("not the rows expected");
                printf(" %lld", (long long)(now() - called));
            }
        } else {
            die(line);
        }
        putchar('\n');
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "actor")) {
        actor(argv[2]);
    } else if (argc == 3 && (!strcmp(argv[1], "inotify") || !strcmp(argv[1], "futex"))) {
        hops(atoi(argv[2]), argv[1][0] == 'f');
    } else if (argc == 4 && (!strcmp(argv[1], "append") || !strcmp(argv[1], "overwrite"))) {
        syncs(atoi(argv[2]), argv[3], argv[1][0] == 'o');
    } else {
        die("usage: see the top of limits.c");
    }
    return 0;
}
