/* A PKCS#11 module between a program and SoftHSM2, which does what SoftHSM2 does not: it goes away, is slow, and is locked. Files in the
   folder DOORWARD_TEST_TOKEN switch that on, and what is called is noted there. The functions are those of the list in PKCS #11 v2.40. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long Ulong;
struct list { unsigned char version[2]; void *f[68]; };
enum { SLOT_LIST = 4, SLOT_INFO = 5, TOKEN_INFO = 6, OPEN = 12, CLOSE_ALL = 13, SESSION_INFO = 15, LOGIN = 18, SIGN_INIT = 42, SIGN = 43 };
enum { DEVICE_REMOVED = 0x32, PIN_LOCKED = 0xa4, TOKEN_NOT_PRESENT = 0xe0 };

static struct list ours, *theirs;
static Ulong slot_in_use;
static int was_gone;

static void path(char *into, const char *name) { snprintf(into, 4096, "%s/%s", getenv("DOORWARD_TEST_TOKEN"), name); }

static int has(const char *name) {
    char file[4096];
    path(file, name);
    return access(file, F_OK) == 0;
}

static void note(const char *name) {
    char file[4096];
    path(file, name);
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0 || write(fd, "once\n", 5) != 5) abort();
    close(fd);
}

/* A token that comes back knows nothing of the sessions of before. */
static int gone(void) {
    int now = has("gone");
    if (now && !was_gone) ((Ulong(*)(Ulong))theirs->f[CLOSE_ALL])(slot_in_use);
    was_gone = now;
    return now;
}

static Ulong slot_list(unsigned char present, Ulong *slots, Ulong *count) {
    if (gone()) return *count = 0;
    return ((Ulong(*)(unsigned char, Ulong *, Ulong *))theirs->f[SLOT_LIST])(present, slots, count);
}

static Ulong slot_info(Ulong slot, unsigned char *info) {
    Ulong done = ((Ulong(*)(Ulong, unsigned char *))theirs->f[SLOT_INFO])(slot, info);
    if (gone()) info[96] &= ~1;
    return done;
}

static Ulong token_info(Ulong slot, unsigned char *info) {
    if (gone()) return TOKEN_NOT_PRESENT;
    Ulong done = ((Ulong(*)(Ulong, unsigned char *))theirs->f[TOKEN_INFO])(slot, info);
    Ulong *flags = (Ulong *)(info + 96);
    if (has("final")) *flags |= 0x20000;
    if (has("locked")) *flags |= 0x40000;
    return done;
}

static Ulong open_session(Ulong slot, Ulong flags, void *a, void *b, Ulong *session) {
    if (gone()) return TOKEN_NOT_PRESENT;
    slot_in_use = slot;
    return ((Ulong(*)(Ulong, Ulong, void *, void *, Ulong *))theirs->f[OPEN])(slot, flags, a, b, session);
}

static Ulong session_info(Ulong session, void *info) {
    if (gone()) return DEVICE_REMOVED;
    return ((Ulong(*)(Ulong, void *))theirs->f[SESSION_INFO])(session, info);
}

static Ulong login(Ulong session, Ulong user, unsigned char *pin, Ulong length) {
    note("logins");
    if (has("locking")) return PIN_LOCKED;
    return ((Ulong(*)(Ulong, Ulong, unsigned char *, Ulong))theirs->f[LOGIN])(session, user, pin, length);
}

static Ulong sign_init(Ulong session, void *mechanism, Ulong key) {
    if (gone()) return DEVICE_REMOVED;
    return ((Ulong(*)(Ulong, void *, Ulong))theirs->f[SIGN_INIT])(session, mechanism, key);
}

static Ulong sign(Ulong session, void *data, Ulong length, void *signature, Ulong *signature_length) {
    if (signature != NULL) {
        note("signatures");
        while (has("slow")) usleep(10000);
    }
    if (gone()) return DEVICE_REMOVED;
    return ((Ulong(*)(Ulong, void *, Ulong, void *, Ulong *))theirs->f[SIGN])(session, data, length, signature, signature_length);
}

Ulong C_GetFunctionList(struct list **list) {
    if (theirs == NULL) {
        void *module = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
        if (module == NULL) return 5;
        Ulong (*get)(struct list **) = (Ulong(*)(struct list **))dlsym(module, "C_GetFunctionList");
        if (get == NULL || get(&theirs) != 0) return 5;
        ours = *theirs;
        ours.f[SLOT_LIST] = slot_list;
        ours.f[SLOT_INFO] = slot_info;
        ours.f[TOKEN_INFO] = token_info;
        ours.f[OPEN] = open_session;
        ours.f[SESSION_INFO] = session_info;
        ours.f[LOGIN] = login;
        ours.f[SIGN_INIT] = sign_init;
        ours.f[SIGN] = sign;
    }
    *list = &ours;
    return 0;
}
