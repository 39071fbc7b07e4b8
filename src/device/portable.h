// The portable kernels: what tools/kc found in kernels/*.k, as tables (generated), and how a device
// chooses among them. Every device but the CPU runs these.
#ifndef BT_DEVICE_PORTABLE_H
#define BT_DEVICE_PORTABLE_H

#include "device/device.h"

enum { BT_SPECIAL_MAX = 16 };

// A rule is arithmetic on the scalars of a launch in reverse Polish notation, one word an
// operation. BT_RULE_WORD is followed by the index of a 32-bit word of the scalars, BT_RULE_NUMBER
// by a number. Arithmetic is of uint32_t, and checked: an overflow, or a division by 0, fails the
// rule.
typedef enum bt_rule_op {
    BT_RULE_END,
    BT_RULE_NUMBER,
    BT_RULE_WORD,
    BT_RULE_ADD,
    BT_RULE_SUB,
    BT_RULE_MUL,
    BT_RULE_DIV,
    BT_RULE_MOD,
    BT_RULE_MIN,
    BT_RULE_MAX,
    BT_RULE_LT,
    BT_RULE_LE,
    BT_RULE_GT,
    BT_RULE_GE,
    BT_RULE_EQ,
    BT_RULE_NE,
    BT_RULE_AND,
    BT_RULE_OR,
    BT_RULE_NOT,
} bt_rule_op;
enum { BT_RULE_DEPTH = 16, BT_RULE_WORDS_MAX = 64 };

// One `kernel` of a .k file.
typedef struct bt_portable {
    const char *name, *file; // "matmul_small", "kernels/matmul.k"
    int line;
    uint16_t kernel;       // the bt_kernel_id that it serves
    uint16_t group;        // threads of a work group
    uint16_t shared_bytes; // of a work group
    uint16_t special_count;
    uint8_t special[BT_SPECIAL_MAX]; // words of the scalars that are `const`, in order
    const uint32_t *when;            // rule; NULL: always
    const uint32_t *grid[3];         // rules; NULL: 1
} bt_portable;

// In the order of the files; the variants of a kernel before the kernel itself (generated).
extern const bt_portable bt_portable_table[];
extern const int bt_portable_count;

// The .k files, for `bantam kernels` (generated). NULL path at the end.
typedef struct bt_portable_source {
    const char *path, *text;
} bt_portable_source;
extern const bt_portable_source bt_portable_sources[];

// Evaluates a rule (NULL: gives 1) on the scalars of a launch. false: overflow or division by 0.
bool bt_rule_value(const uint32_t *rule, const unsigned char *scalars, uint32_t *value);

// The kernel of `table` that runs the launch, as an index, and its grid (each axis at least 1).
// Fails when none does (f64, map_host) or the grid exceeds BT_GROUPS_MAX.
bt_status bt_portable_pick(const bt_portable *table, int count, const bt_launch *launch,
                           uint32_t grid[3], bt_error *err, int *index) BT_MUST_CHECK;

// The rules of a kernel that was exchanged.
typedef struct bt_portable_rules {
    uint32_t words[4][BT_RULE_WORDS_MAX];
} bt_portable_rules;

// Gives `entry` the rules, the group and the special words of `from`, whose rules are copied: into
// *kept, to be freed, instead of what was kept for this entry before (NULL: nothing).
bt_status bt_portable_adopt(bt_portable *entry, const bt_portable *from, bt_portable_rules **kept,
                            bt_error *err) BT_MUST_CHECK;

// Bit i: binding i of the launch is there (`has` of the kernel language).
uint32_t bt_portable_present(const bt_launch *launch);
// What may be compiled into the kernel for this launch: that, then its special words, then 0s.
void bt_portable_constants(const bt_portable *kernel, const bt_launch *launch,
                           uint32_t out[1 + BT_SPECIAL_MAX]);

#endif
