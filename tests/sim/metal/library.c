// Libraries, functions with the values of their constants, and pipelines.
#include "internal.h"

#include <string.h>

typedef metal_object object;

enum { ERROR_COMPILE = 3, ERROR_NO_FUNCTION = 5, ERROR_PIPELINE = 1 }; // MTLLibraryError
enum { INDEX_MAX = 65535 };
static const char library_domain[] = "MTLLibraryErrorDomain", gpu_domain[] = "AGXMetalG13X";

static const metal_class class_library, class_function;

typedef struct library_data {
    metal_program program;
} library_data;

static const metal_program *program_of(const metal_pipeline *k) {
    return &((library_data *)k->made_of->data)->program;
}

// ---- Values of function constants -------------------------------------------------------------

typedef struct given_value {
    unsigned index, type;
    uint64_t value;
} given_value;

typedef struct constants_data {
    given_value given[SIM_CONSTANTS_MAX];
    int count;
} constants_data;

static size_t type_bytes(metal_uint type) { // 0: none that a constant has here
    return type == METAL_BOOL                                               ? 1
           : type == METAL_FLOAT || type == METAL_INT || type == METAL_UINT ? 4
                                                                            : 0;
}

// Metal Shading Language Specification, "Function Constants": an index is 0 to 65535.
// MTLFunctionConstantValues, setConstantValue(_:type:index:): a pointer to the value, and its type.
static bool rule_constant(const void *value, metal_uint type, metal_uint index) {
    static const char where[] = "-[MTLFunctionConstantValues setConstantValue:type:atIndex:]";
    if (!value)
        metal_finding("%s: the value is NULL.", where);
    else if (!type_bytes(type))
        metal_finding("%s: type %lu is none of uint (33), int (29), float (3) and bool (53), all "
                      "that the simulated Metal has.",
                      where, type);
    else if (index > INDEX_MAX)
        metal_finding("%s: index %lu is not 0 to %d.", where, index, INDEX_MAX);
    else
        return true;
    return false;
}

static object *constants_make(object *self, metal_sel sel) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_new(&metal_class_constants, sizeof(constants_data));
}

static void constants_set(object *self, metal_sel sel, const void *value, metal_uint type,
                          metal_uint index) {
    (void)sel;
    METAL_LOCKED;
    constants_data *c = self->data;
    if (!rule_constant(value, type, index)) return;
    int at = 0;
    while (at < c->count && c->given[at].index != index) at++;
    if (at == SIM_CONSTANTS_MAX) return;
    c->count += at == c->count;
    c->given[at] = (given_value){.index = (unsigned)index, .type = (unsigned)type};
    memcpy(&c->given[at].value, value, type_bytes(type));
}

static const given_value *given_at(const constants_data *c, unsigned index) {
    for (int i = 0; i < c->count; i++)
        if (c->given[i].index == index) return &c->given[i];
    return NULL;
}

// MTLLibrary, makeFunction(name:constantValues:): "The compiler can't compile the function if any
// value is invalid for the function constants it requires."
static bool rule_constant_given(const sim_kernel *kernel, const sim_constant *constant,
                                const given_value *given, char *text, size_t text_bytes) {
    if (given && given->type == constant->type) return true;
    if (!given) {
        snprintf(text, text_bytes,
                 "Function %s uses the constant %s, function_constant(%u), that has no value",
                 kernel->name, constant->name, constant->index);
        return false;
    }
    snprintf(text, text_bytes,
             "the value of function_constant(%u) has type %u, but %s is of type %u", given->index,
             given->type, constant->name, constant->type);
    metal_finding("-[MTLLibrary newFunctionWithName:constantValues:error:]: %s.", text);
    return false;
}

// MTLFunctionConstantValues: "When you create a specialized function, subsequent changes to its
// constant values have no effect." makeFunction(name:constantValues:): "The compiler ignores any
// values that don't correspond to a function constant in the named function".
static bool take_values(metal_pipeline *function, const constants_data *c, char *text,
                        size_t text_bytes) {
    const sim_constant *constants = program_of(function)->constants;
    for (int i = 0; constants[i].name; i++) {
        if (!(function->kernel->constants >> i & 1)) continue;
        const given_value *given = given_at(c, constants[i].index);
        if (!rule_constant_given(function->kernel, &constants[i], given, text, text_bytes))
            return false;
        function->values.value[i] = given->value;
    }
    return function->ready = true;
}

void metal_pipeline_prepare(const metal_pipeline *pipeline) {
    const sim_constant *constants = program_of(pipeline)->constants;
    for (int i = 0; constants[i].name; i++)
        memcpy(constants[i].value, &pipeline->values.value[i], (size_t)constants[i].bytes);
}

// ---- Libraries and functions ------------------------------------------------------------------

// Metal Feature Set Tables: what a family of GPUs has not got, no program for it may use.
static bool rule_family(const char *text, int family, char *said, size_t said_bytes) {
    const char *beyond = metal_text_beyond(text, family);
    if (beyond)
        snprintf(said, said_bytes, "program_source: error: %s... is not available on Apple%d",
                 beyond, family);
    return !beyond;
}

object *metal_library_make(object *text, object *options, int family, object **error) {
    static const char where[] = "-[MTLDevice newLibraryWithSource:options:error:]";
    char said[8192];
    metal_program program;
    if (!metal_is_a(text, &metal_class_string, where)) return NULL;
    if (options && !metal_is_a(options, &metal_class_options, where)) return NULL;
    metal_state.fast_math += !options || *(bool *)options->data;
    if (metal_wish.compile_error[0])
        return metal_refuse(error, library_domain, ERROR_COMPILE, metal_wish.compile_error);
    if (!rule_family(metal_string_text(text), family, said, sizeof said) ||
        !metal_compile(metal_string_text(text), &program, said, sizeof said))
        return metal_refuse(error, library_domain, ERROR_COMPILE, said);
    object *o = metal_new(&class_library, sizeof(library_data));
    ((library_data *)o->data)->program = program;
    metal_state.libraries_made++;
    return o;
}

static object *make_kernel(const metal_class *isa, object *library, const sim_kernel *kernel) {
    object *o = metal_new(isa, sizeof(metal_pipeline));
    *(metal_pipeline *)o->data = (metal_pipeline){
        .made_of = metal_keep(library), .kernel = kernel, .ready = kernel->constants == 0};
    return o;
}

static void kernel_done(void *data) {
    metal_drop(((metal_pipeline *)data)->made_of);
}

// MTLLibrary, makeFunction(name:): nil where the library has none of this name.
static object *find_function(object *library, object *name, const char *where) {
    if (!metal_is_a(name, &metal_class_string, where)) return NULL;
    const sim_kernel *kernel =
        metal_kernel(&((library_data *)library->data)->program, metal_string_text(name));
    if (!kernel || metal_wish.no_function) return NULL;
    return make_kernel(&class_function, library, kernel);
}

static object *library_function(object *self, metal_sel sel, object *name) {
    (void)sel;
    METAL_LOCKED;
    return find_function(self, name, "-[MTLLibrary newFunctionWithName:]");
}

static object *library_specialized(object *self, metal_sel sel, object *name, object *values,
                                   object **error) {
    (void)sel;
    METAL_LOCKED;
    static const char where[] = "-[MTLLibrary newFunctionWithName:constantValues:error:]";
    char text[400] = "there is no function of this name";
    if (!metal_is_a(values, &metal_class_constants, where)) return NULL;
    object *o = find_function(self, name, where);
    if (!o) return metal_refuse(error, library_domain, ERROR_NO_FUNCTION, text);
    if (take_values(o->data, values->data, text, sizeof text)) return o;
    metal_drop(o);
    return metal_refuse(error, library_domain, ERROR_COMPILE, text);
}

// ---- Pipelines --------------------------------------------------------------------------------

static metal_uint shared_bytes(const sim_kernel *kernel) {
    return (metal_uint)(kernel->shared_end - kernel->shared);
}

// MTLDevice, maxThreadgroupMemoryLength, the most that a compute kernel may have; there is no
// pipeline for one that declares more.
static bool rule_shared_memory(const sim_kernel *kernel, char *text, size_t text_bytes) {
    if (shared_bytes(kernel) <= metal_shared_max()) return true;
    snprintf(text, text_bytes,
             "Threadgroup memory size (%lu) exceeds the maximum threadgroup memory allowed (%lu)",
             shared_bytes(kernel), metal_shared_max());
    metal_finding("-[MTLDevice newComputePipelineStateWithFunction:error:]: %s.", text);
    return false;
}

// MTLLibrary, makeFunction(name:): a function that uses function constants and comes from there
// only tells which these are; there is no pipeline of it.
static bool rule_specialized(const metal_pipeline *function, char *text, size_t text_bytes) {
    if (function->ready) return true;
    snprintf(text, text_bytes,
             "function %s cannot be used to build a pipeline state. Use "
             "newFunctionWithName:constantValues:error: to get the specialized function",
             function->kernel->name);
    metal_finding("-[MTLDevice newComputePipelineStateWithFunction:error:]: %s.", text);
    return false;
}

object *metal_pipeline_make(object *function, object **error) {
    char text[400];
    if (!metal_is_a(function, &class_function,
                    "-[MTLDevice newComputePipelineStateWithFunction:error:]"))
        return NULL;
    const metal_pipeline *k = function->data;
    if (metal_wish.pipeline_error[0])
        return metal_refuse(error, gpu_domain, ERROR_PIPELINE, metal_wish.pipeline_error);
    if (!rule_specialized(k, text, sizeof text) ||
        !rule_shared_memory(k->kernel, text, sizeof text))
        return metal_refuse(error, gpu_domain, ERROR_PIPELINE, text);
    object *o = make_kernel(&metal_class_pipeline, k->made_of, k->kernel);
    ((metal_pipeline *)o->data)->values = k->values;
    return o;
}

static object *kernel_name(object *self, metal_sel sel) {
    (void)sel;
    return metal_string(((metal_pipeline *)self->data)->kernel->name);
}

metal_uint metal_threads_max(const sim_kernel *kernel) {
    metal_uint most = metal_wish.threads_max ? metal_wish.threads_max : METAL_THREADS;
    return kernel->threads && kernel->threads < most ? kernel->threads : most;
}
static metal_uint pipeline_threads(object *self, metal_sel sel) {
    (void)sel;
    return metal_threads_max(((metal_pipeline *)self->data)->kernel);
}
static metal_uint pipeline_width(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return METAL_SIMD;
}
static metal_uint pipeline_shared(object *self, metal_sel sel) {
    (void)sel;
    return shared_bytes(((metal_pipeline *)self->data)->kernel);
}

// ---- Classes ----------------------------------------------------------------------------------

METAL_CLASS(metal_constants_factory, "MTLFunctionConstantValues", NULL, NULL,
            METAL_METHOD("new", constants_make));
METAL_CLASS(metal_class_constants, "MTLFunctionConstantValues", NULL, &metal_state.constants,
            METAL_METHOD("setConstantValue:type:atIndex:", constants_set));
static METAL_CLASS(class_library, "MTLLibrary", NULL, &metal_state.libraries,
                   METAL_METHOD("newFunctionWithName:", library_function),
                   METAL_METHOD("newFunctionWithName:constantValues:error:", library_specialized));
static METAL_CLASS(class_function, "MTLFunction", kernel_done, &metal_state.functions,
                   METAL_METHOD("name", kernel_name));
METAL_CLASS(metal_class_pipeline, "MTLComputePipelineState", kernel_done, &metal_state.pipelines,
            METAL_METHOD("maxTotalThreadsPerThreadgroup", pipeline_threads),
            METAL_METHOD("threadExecutionWidth", pipeline_width),
            METAL_METHOD("staticThreadgroupMemoryLength", pipeline_shared));
