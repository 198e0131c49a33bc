/* Operators that break the process which runs them, for tests of isolation: each looks at the first value of every row.
 *
 * ONNX Runtime's header is not in its wheel. What is declared here is its binary interface of version 10: the table of functions only
 * grows at its end, so that a function keeps its place in every later version.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *(*fn)();
typedef struct { const void *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); } OrtApiBase;
enum { CREATE_DOMAIN = 26, DOMAIN_ADD = 27, ADD_DOMAIN = 28, TENSOR_DATA = 51, DIM_COUNT = 61, DIMS = 62, COUNT = 64, INFO = 65, GET_INPUT = 90, GET_OUTPUT = 91, RELEASE_INFO=99 };
#define LIMIT 100.0f

static const fn *api;

typedef struct Op {
  uint32_t version;
  void *(*create)(const struct Op *, const void *, const void *);
  const char *(*name)(const struct Op *);
  const char *(*provider)(const struct Op *);
  int (*input_type)(const struct Op *, size_t);
  size_t (*inputs)(const struct Op *);
  int (*output_type)(const struct Op *, size_t);
  size_t (*outputs)(const struct Op *);
  void (*compute)(void *, void *);
  void (*destroy)(void *);
  int (*input_kind)(const struct Op *, size_t);
  int (*output_kind)(const struct Op *, size_t);
} Op;

static void *create(const Op *op, const void *a, const void *i) { (void)a; (void)i; return (void *)op; }
static const char *provider(const Op *op) { (void)op; return NULL; }
static int type(const Op *op, size_t i) { (void)op; (void)i; return 1; }
static size_t one(const Op *op) { (void)op; return 1; }
static void destroy(void *k) { (void)k; }
static int kind(const Op *op, size_t i) { (void)op; (void)i; return 0; }

static void run_from(float low, float high, void *context, void (*bad)(float)) {
  const void *in; void *out, *info; float *x, *y; size_t n, total; int64_t dims[16];
  api[GET_INPUT](context, (size_t)0, &in);
  api[INFO](in, &info);
  api[DIM_COUNT](info, &n);
  api[DIMS](info, dims, n);
  api[COUNT](info, &total);
  api[GET_OUTPUT](context, (size_t)0, dims, n, &out);
  api[TENSOR_DATA]((void *)in, (void **)&x);
  api[TENSOR_DATA](out, (void **)&y);
  size_t row = dims[0] ? total / dims[0] : 0;
  for (int64_t i = 0; i < dims[0]; i++)
    if (x[i * row] > low && x[i * row] < high) bad(x[i * row]);
  memcpy(y, x, total * sizeof(float));
  api[RELEASE_INFO](info);
}
static void run(void *context, void (*bad)(float)) { run_from(LIMIT, INFINITY, context, bad); }
static void aborts(float v) { (void)v; abort(); }
static void segv(float v) { (void)v; *(volatile int *)8 = 1; }
static void sleeps(float v) { (void)v; sleep(1000); }
static void eats(float v) { (void)v; for (;;) { char *p = malloc(1 << 24); memset(p, 1, 1 << 24); usleep(20000);} }
static void beside(float v) { if (v != 2 * LIMIT) abort(); } /* a sample itself passes, a point beside it does not */
static void exits(float v) { (void)v; _exit(7); }
static void c_beside(void *k, void *c) { (void)k; run(c, beside); }
static void c_exit(void *k, void *c) { (void)k; run(c, exits); }
static const char *n_beside(const Op *o) { (void)o; return "AbortsBeside"; }
static const char *n_exit(const Op *o) { (void)o; return "Exits"; }
static void *breaks(const Op *op, const void *a, const void *i) { (void)op; (void)a; (void)i; abort(); }
static void c_between(void *k, void *c) { (void)k; run_from(0.5f * LIMIT, 0.9f * LIMIT, c, aborts); } /* on the way */
static void c_stuck(void *k, void *c) { (void)k; run_from(0.5f * LIMIT, 0.9f * LIMIT, c, sleeps); }
static const char *n_between(const Op *o) { (void)o; return "AbortsBetween"; }
static const char *n_stuck(const Op *o) { (void)o; return "SleepsBetween"; }
static void c_none(void *k, void *c) { (void)k; (void)c; }
static const char *n_breaks(const Op *o) { (void)o; return "AbortsAtOpening"; }
static void c_abort(void *k, void *c) { (void)k; run(c, aborts); }
static void c_segv(void *k, void *c) { (void)k; run(c, segv); }
static void c_sleep(void *k, void *c) { (void)k; run(c, sleeps); }
static void c_eat(void *k, void *c) { (void)k; run(c, eats); }
static const char *n_abort(const Op *o) { (void)o; return "Aborts"; }
static const char *n_segv(const Op *o) { (void)o; return "Faults"; }
static const char *n_sleep(const Op *o) { (void)o; return "Sleeps"; }
static const char *n_eat(const Op *o) { (void)o; return "Eats"; }
#define OP(nm, cp) {10, create, nm, provider, type, one, type, one, cp, destroy, kind, kind}
static Op ops[] = {OP(n_abort, c_abort), OP(n_segv, c_segv), OP(n_sleep, c_sleep), OP(n_eat, c_eat), OP(n_beside, c_beside), OP(n_exit, c_exit), OP(n_between, c_between), OP(n_stuck, c_stuck),
                   {10, breaks, n_breaks, provider, type, one, type, one, c_none, destroy, kind, kind}};

void *RegisterCustomOps(void *options, const OrtApiBase *base) {
  void *domain, *status; size_t i;
  api = base->GetApi(10);
  if ((status = api[CREATE_DOMAIN]("test.crashes", &domain))) return status;
  for (i = 0; i < sizeof ops / sizeof *ops; i++) if ((status = api[DOMAIN_ADD](domain, &ops[i]))) return status;
  return api[ADD_DOMAIN](options, domain);
}
