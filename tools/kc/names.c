// Names: those that the languages reserve, and what the others stand for.
#include "kc/unit.h"

#include <string.h>

// Keywords of GLSL 450, WGSL, MSL (C++14), CUDA and C, and macros that their headers define.
static const char reserved[] =
    // C and C++
    " alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t"
    " class compl const const_cast constexpr continue decltype default delete do double "
    "dynamic_cast"
    " else enum explicit export extern false float for friend goto if inline int long mutable "
    "namespace"
    " new noexcept not not_eq nullptr operator or or_eq private protected public register"
    " reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct "
    "switch"
    " template this thread_local throw true try typedef typeid typename typeof union unsigned using"
    " virtual void volatile wchar_t while xor xor_eq concept requires co_await co_return co_yield"
    " NULL EOF INFINITY NAN HUGE_VAL HUGE_VALF assert errno linux unix i386 stdin stdout stderr"
    " M_PI M_PI_2 M_PI_4 M_E M_LN2 M_SQRT2 MAXFLOAT FLT_MAX FLT_MIN FLT_EPSILON INT_MAX INT_MIN"
    " UINT_MAX CHAR_BIT RAND_MAX signbit isnan isinf isfinite isnormal fpclassify"
    // CUDA and MSL
    " threadIdx blockIdx blockDim gridDim warpSize dim3 kernel device constant threadgroup thread "
    "vertex"
    " fragment metal half bfloat uint uchar ushort ulong ptrdiff_t size_t sampler texture "
    "object_data"
    " mesh array atomic as_type ray_data visible intersection atomic_int atomic_uint main"
    // GLSL
    " active attribute atomic_uint buffer cast centroid coherent common discard dmat2 dmat3 dmat4 "
    "dvec2"
    " dvec3 dvec4 external filter fixed flat fvec2 fvec3 fvec4 highp hvec2 hvec3 hvec4 image1D "
    "image2D"
    " image3D image2DRect imageCube imageBuffer in inout input interface invariant invocation "
    "isampler1D"
    " isampler2D isampler3D ivec2 ivec3 ivec4 bvec2 bvec3 bvec4 layout lowp mat2 mat3 mat4 mat2x2 "
    "mat2x3"
    " mat2x4 mat3x2 mat3x3 mat3x4 mat4x2 mat4x3 mat4x4 mediump noinline noperspective out output "
    "partition"
    " patch precise precision readonly resource sample sampler1D sampler2D sampler3D samplerCube"
    " sampler2DRect samplerBuffer sampler3DRect shared smooth subroutine superp texture1D "
    "texture2D uniform"
    " usampler1D usampler2D usampler3D uvec2 uvec3 uvec4 varying vec2 vec3 vec4 writeonly hlsl_half"
    // WGSL
    " alias const_assert continuing diagnostic enable fn let loop override ptr var f16 f32 i32 u32 "
    "vec2f"
    " vec3f vec4f vec2i vec3i vec4i vec2u vec3u vec4u"
    " Self abstract alignas async await become cast_to checked co_yield_value crate debugger demote"
    " demote_to_helper do_while extends fallthrough final finally from fxgroup get groupshared "
    "highp impl"
    " implements import instanceof is item_of lineadj lowp macro macro_rules match meta mod module "
    "move mut"
    " native nil nointerpolation non_coherent noncoherent null of_type package packoffset pass "
    "pixelfragment"
    " precise premerge pub readwrite ref regardless register reinterpret self set snorm std super "
    "target"
    " tessellate trait type unless unorm unsized use wgsl where with writeable yield ";

// What the languages' libraries call functions: no helper and no constant may be called so.
static const char library[] =
    " acos acosf acosh add_sat all any asin asinh atan atan2 atanh bitCount bitfieldExtract"
    " bitfieldInsert cbrt ceil ceilf clamp clz copysign cos cosf cosh cospi countOneBits cross cos "
    "dFdx"
    " degrees determinant distance dot drem erf erff erfc erfcf erfinv exp2 exp2f exp10 expf expm1 "
    "extract_bits"
    " faceforward fabs fabsf fdim ffs findLSB findMSB fmax fmaxf fmin fminf fmod fmodf fract frexp "
    "gamma"
    " hypot ilogb index insert_bits inverse inversesqrt isnan isinf j0 j1 jn ldexp length lgamma "
    "lerp log10"
    " log1p log2 log2f logb logf mad mad24 mix modf mul24 mulhi nan nearbyint nextafter normalize "
    "norm"
    " outerProduct pow powf powi popcount quantize radians rand random reflect refract remainder "
    "remquo"
    " reverse_bits rhypot rint rotate round roundf roundEven rsqrt rsqrtf saturate scalbn sign sin "
    "sinf sinh"
    " sincos sinpi select smoothstep sqrtf step tan tanf tanh tanhf tgamma transpose trunc truncf "
    "y0 y1 yn"
    " abort abs atoi bsearch calloc clock div exit free getenv labs malloc memcpy memset printf "
    "qsort puts"
    " signal srand strlen system time toupper unpack pack assert max3 min3 median3 absdiff "
    "abs_diff barrier"
    " memoryBarrier texture dFdy fwidth workgroupBarrier storageBarrier arrayLength bitcast ";

static const char *const builtin_names[KC_BUILTIN_COUNT] = {
    "exp", "log",  "sqrt",    "floor",    "abs",    "min", "max",
    "fma", "pick", "as_uint", "as_float", "umulhi", "has", "barrier"};
const char *const kc_type_names[KC_TYPE_COUNT] = {"bool", "int", "uint", "float"};

static const char built_in_values[] = " lid gx gy gz ngx ";

// The index of a word in a list, or -1.
static int find_word(const char *list, const kc_token *name) {
    int index = 0;
    for (const char *s = list + 1; *s; index++) {
        size_t length = strcspn(s, " ");
        if (length == name->length && !memcmp(s, name->text, length)) return index;
        s += length + 1;
    }
    return -1;
}

static int find_name(const char *const *names, int count, const kc_token *name) {
    for (int i = 0; i < count; i++) {
        if (kc_is(name, names[i])) return i;
    }
    return -1;
}

int kc_find_builtin(const kc_token *name) {
    return find_name(builtin_names, KC_BUILTIN_COUNT, name);
}
int kc_find_type(const kc_token *name) {
    return find_name(kc_type_names, KC_TYPE_COUNT, name);
}

// Which of lid, gx, gy, gz, ngx a symbol of a kernel is.
static kc_symbol *built_in_value(const kc_token *name) {
#define VALUE(i) \
    { .kind = KC_BUILT_IN, .type = KC_UINT, .global = -1, .value = i }
    static kc_symbol values[] = {VALUE(0), VALUE(1), VALUE(2), VALUE(3), VALUE(4)};
#undef VALUE
    int index = find_word(built_in_values, name);
    return index < 0 ? NULL : &values[index];
}

kc_symbol *kc_find(const kc_parser *p, const kc_token *name) {
    for (int i = p->scope_count; i-- > 0;) {
        if (kc_same(p->scope[i]->at, name)) return p->scope[i];
    }
    for (int i = 0; i < p->unit->global_count; i++) {
        kc_symbol *s = p->unit->global[i];
        if ((p->file->sees >> s->file & 1) && kc_same(s->at, name)) return s;
    }
    return built_in_value(name);
}

void kc_check_name(kc_parser *p, const kc_token *name, bool global) {
    int length = (int)name->length;
    if (name->kind != KC_NAME) kc_bad(p, name, "a name is expected before '%.*s'", KC_TEXT(name));
    if (find_word(reserved, name) >= 0)
        kc_bad(p, name, "'%.*s' is a reserved word of one of the languages; take another name",
               KC_TEXT(name));
    if (kc_find_builtin(name) >= 0 || find_word(built_in_values, name) >= 0)
        kc_bad(p, name, "'%.*s' is built in; take another name", KC_TEXT(name));
    if (global && find_word(library, name) >= 0)
        kc_bad(p, name, "'%.*s' is a function of one of the languages; take another name",
               KC_TEXT(name));
    if (!strncmp(name->text, "bt_", 3) || name->text[0] == '_' || name->text[length - 1] == '_' ||
        (length > 2 && !strncmp(name->text, "gl_", 3)))
        kc_bad(p, name, "names beginning with bt_, gl_ or _ or ending with _ are reserved");
    for (int i = 1; i < length; i++) {
        if (name->text[i] == '_' && name->text[i - 1] == '_')
            kc_bad(p, name, "two underscores side by side are reserved");
    }
}

kc_symbol *kc_declare(kc_parser *p, kc_token *name, kc_symbol_kind kind, kc_type type) {
    bool global = kind == KC_CONSTANT || kind == KC_HELPER;
    kc_unit *unit = p->unit;
    kc_check_name(p, name, global);
    const kc_symbol *other = kc_find(p, name);
    if (other)
        kc_bad(p, name, "'%.*s' is declared already in line %d of %s; nothing may hide a name",
               KC_TEXT(name), other->at->line, unit->file[other->file].name);
    if (global && unit->global_count == KC_GLOBALS_MAX)
        kc_bad(p, name, "more than %d constants and helpers", KC_GLOBALS_MAX);
    if (!global && p->scope_count == KC_LOCALS_MAX)
        kc_bad(p, name, "more than %d names in scope", KC_LOCALS_MAX);
    // (A second pass over a body finds what the first one made.)
    kc_symbol *s = name->symbol ? name->symbol : kc_alloc(unit, sizeof *s);
    *s =
        (kc_symbol){.at = name, .varying = name, .kind = kind, .type = type, .file = p->file_index};
    s->item = p->file->item_count;
    s->global = global ? unit->global_count : -1;
    name->role = KC_USE;
    name->symbol = s;
    if (global) unit->global[unit->global_count++] = s;
    if (!global) p->scope[p->scope_count++] = s;
    return s;
}
