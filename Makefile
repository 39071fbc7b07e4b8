# Builds Bantam: `make` leaves the command at build/bantam and the library beside it. Everything
# goes below build/ (or BUILD=...); a changed compiler or changed flags rebuild.
#
#   make            command, libraries, bantam.pc      make test       all tests
#   make demo       train and try a network            make asan ubsan tsan   tests, instrumented
#   make examples   the programs of examples/          make bench      speed of this machine
#   make install    PREFIX=/usr/local DESTDIR=         make format     clang-format on all sources

BUILD   ?= build
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
GEN      := $(BUILD)/gen
SANITIZE ?= # address,undefined ... for an instrumented build; also give BUILD

# What this machine has, written by the first rule below; make starts again when that has run. Goals
# that build nothing do without.
ifneq ($(filter-out clean format uninstall,$(or $(MAKECMDGOALS),all)),)
GLSLC := $(shell command -v glslc)
# (Made anew when glslc has come or gone.)
$(shell grep -qsxF 'GLSLC_WAS := $(GLSLC)' $(BUILD)/config.mk || rm -f $(BUILD)/config.mk)
include $(BUILD)/config.mk
endif

VERSION := $(shell sed -n 's/^.define BT_VERSION_TEXT *"\(.*\)"/\1/p' include/bantam.h)
SONAME  := libbantam.so.0

# One job per core; -jN on the command line wins.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif

# Instrumented code confuses gcc's flow analysis: there a warning is no error.
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            $(if $(strip $(SANITIZE)),-Wno-format-truncation -Wno-maybe-uninitialized,-Werror)
CFLAGS   ?= $(if $(strip $(SANITIZE)),-O1,-O3) -g
FLAGS    := -std=c17 -D_GNU_SOURCE -Iinclude -Isrc -Itools -I$(GEN) $(CFLAGS) -ffp-contract=off -fPIC -fvisibility=hidden \
            $(WARNINGS) $(CPPFLAGS)
LINK     := -pthread $(LDFLAGS)
LIBS     := -lz -lpng -ljansson -lmd -lm -ldl -lpthread
ifneq ($(strip $(SANITIZE)),)
FLAGS += -fsanitize=$(strip $(SANITIZE)) -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK  += -fsanitize=$(strip $(SANITIZE))
endif

# Sources named *_isa.c are compiled once per instruction set; the CPU's flags choose at run time.
ISA_FLAGS_base   :=
ISA_FLAGS_avx2   := -mavx2 -mfma
ISA_FLAGS_avx512 := $(ISA_FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISAS := $(if $(filter x86_64% amd64%,$(shell $(CC) -dumpmachine)),avx512 avx2) base

ISA_SOURCES := $(wildcard src/device/cpu/*_isa.c)
KERNELS     := $(sort $(wildcard kernels/*.k))
KC_SOURCES  := $(filter-out tools/kc/main.c,$(wildcard tools/kc/*.c))
DEVICES     := cpu sim check $(if $(HAVE_VULKAN),vulkan)
LIB_SOURCES := $(filter-out $(ISA_SOURCES),$(wildcard src/*/*.c $(DEVICES:%=src/device/%/*.c))) $(KC_SOURCES)
GENERATED   := kernels_tables sim_kernels $(if $(HAVE_VULKAN),spirv)
# (The slow ones first, so that no core waits for them at the end.)
LIB_OBJECTS := $(foreach isa,$(ISAS),$(ISA_SOURCES:%.c=$(BUILD)/obj/%.$(isa).o)) \
               $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o) $(GENERATED:%=$(BUILD)/obj/gen/%.o)
FLAGS       += $(if $(HAVE_VULKAN),-DBT_HAVE_VULKAN)
CLI_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard cli/*.c))
EXAMPLES    := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))
TESTS       := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
TEST_HELP   := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out tests/test_%,$(wildcard tests/*.c)))

.PHONY: all install uninstall examples test-programs test asan ubsan tsan bench demo format clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/bantam $(BUILD)/libbantam.a $(BUILD)/libbantam.so $(BUILD)/bantam.pc

# ---- Compiling ------------------------------------------------------------------------------

# Installs what the build needs where something is missing, once for each build folder, and then
# looks which optional parts can be built.
$(BUILD)/config.mk: scripts/install-deps.sh
	@mkdir -p $(@D)
	@CC="$(CC)" sh scripts/install-deps.sh build
	@{ echo "GLSLC_WAS := $$(command -v glslc)"; if command -v glslc >/dev/null && echo '#include <vulkan/vulkan.h>' | $(CC) -E -x c - >/dev/null 2>&1; \
	then echo 'HAVE_VULKAN := 1'; \
	else echo 'HAVE_VULKAN :='; echo 'Without Vulkan: it needs glslc and libvulkan-dev' >&2; fi; } > $@
$(BUILD)/deps-test: scripts/install-deps.sh
	@mkdir -p $(@D)
	@CC="$(CC)" sh scripts/install-deps.sh test && touch $@

# Changes only when the compiler or the flags do.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@{ $(CC) --version | head -n 1; echo '$(CC) $(FLAGS) $(ISA_FLAGS_avx512) $(LINK)'; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

define compile
@mkdir -p $(@D)
@echo "  CC  $(@:$(BUILD)/%=%)"
@$(CC) $(FLAGS) $1 -MMD -MP -c -o $@ $<
endef

$(BUILD)/obj/%.o: %.c $(BUILD)/flags | $(GEN)/kernels_gen.h
	$(call compile)
$(BUILD)/obj/gen/%.o: $(GEN)/%.c $(BUILD)/flags
	$(call compile)
$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags | $(BUILD)/deps-test $(GEN)/kernels_gen.h
	$(call compile)
$(BUILD)/obj/%.base.o: %.c $(BUILD)/flags | $(GEN)/kernels_gen.h
	$(call compile,$(ISA_FLAGS_base) -DBT_ISA=base)
$(BUILD)/obj/%.avx2.o: %.c $(BUILD)/flags | $(GEN)/kernels_gen.h
	$(call compile,$(ISA_FLAGS_avx2) -DBT_ISA=avx2)
$(BUILD)/obj/%.avx512.o: %.c $(BUILD)/flags | $(GEN)/kernels_gen.h
	$(call compile,$(ISA_FLAGS_avx512) -DBT_ISA=avx512)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# ---- Kernels --------------------------------------------------------------------------------

# The translator is built first; the rest of the library includes what it writes.
$(BUILD)/kc: $(wildcard tools/kc/*.[ch]) $(BUILD)/flags
	@echo "  CC  kc"
	@$(CC) $(FLAGS) $(LINK) -o $@ $(filter %.c,$^)

$(GEN)/kernels_gen.h: $(BUILD)/kc $(KERNELS)
	@mkdir -p $(@D)
	@$< header $(KERNELS) > $@
$(GEN)/kernels_tables.c: $(BUILD)/kc $(KERNELS)
	@mkdir -p $(@D)
	@$< tables $(KERNELS) > $@
$(GEN)/sim_kernels.c: $(BUILD)/kc $(KERNELS)
	@mkdir -p $(@D)
	@$< sim $(KERNELS) > $@
$(GEN)/spirv.c: $(BUILD)/kc $(KERNELS)
	@mkdir -p $(@D)/spirv
	@echo "  SPIR-V"
	@$< list $(KERNELS) | xargs -P $$(nproc) -I{} sh -c '$< glsl {} $(KERNELS) > $(@D)/spirv/{}.comp && \
	    glslc -O --target-env=vulkan1.2 -o $(@D)/spirv/{}.spv $(@D)/spirv/{}.comp'
	@$< spirv $(@D)/spirv $(KERNELS) > $@

# ---- Linking --------------------------------------------------------------------------------

# The lists make a removed source file rebuild what contained it.
$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJECTS) $(CLI_OBJECTS)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/libbantam.a: $(LIB_OBJECTS) $(BUILD)/sources
	@rm -f $@
	@ar rcs $@ $(LIB_OBJECTS)

$(BUILD)/libbantam.so: $(LIB_OBJECTS) $(BUILD)/sources
	@$(CC) -shared -Wl,-soname,$(SONAME) $(LINK) -o $@ $(LIB_OBJECTS) $(LIBS)
	@ln -sf libbantam.so $(BUILD)/$(SONAME)

$(BUILD)/bantam: $(CLI_OBJECTS) $(BUILD)/libbantam.a
	@$(CC) $(LINK) -o $@ $^ $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_HELP) $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) $(LINK) -o $@ $^ -lcmocka $(LIBS)

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) $(LINK) -o $@ $^ $(LIBS)

$(BUILD)/bench/%: bench/%.c $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) $(FLAGS) $(LINK) -o $@ $^ $(LIBS)

$(BUILD)/bantam.pc: Makefile include/bantam.h $(BUILD)/flags
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' \
	    'Name: bantam' 'Description: Trains small neural networks' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lbantam' \
	    'Libs.private: $(LIBS)' > $@

# ---- Running --------------------------------------------------------------------------------

examples: $(EXAMPLES)

test-programs: all $(TESTS) $(EXAMPLES)

test: test-programs
	@BUILD='$(BUILD)' CC='$(CC)' SANITIZE='$(strip $(SANITIZE))' sh tests/run.sh $(ONLY)

asan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/asan SANITIZE=address,undefined
ubsan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/ubsan SANITIZE=undefined
tsan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/tsan SANITIZE=thread

bench: $(BUILD)/bantam
	@$(BUILD)/bantam bench mlp
	@$(BUILD)/bantam bench lenet

demo: $(BUILD)/bantam
	@BUILD='$(BUILD)' sh scripts/demo.sh

# ---- Installing -----------------------------------------------------------------------------

install: all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(LIBDIR)/pkgconfig'
	install -m 755 $(BUILD)/bantam '$(DESTDIR)$(PREFIX)/bin/bantam'
	install -m 644 include/bantam.h '$(DESTDIR)$(PREFIX)/include/bantam.h'
	install -m 644 $(BUILD)/libbantam.a '$(DESTDIR)$(LIBDIR)/libbantam.a'
	install -m 755 $(BUILD)/libbantam.so '$(DESTDIR)$(LIBDIR)/libbantam.so.$(VERSION)'
	ln -sf libbantam.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libbantam.so'
	sed -e 's|^prefix=.*|prefix=$(PREFIX)|' -e 's|^libdir=.*|libdir=$(LIBDIR)|' $(BUILD)/bantam.pc \
	    > '$(DESTDIR)$(LIBDIR)/pkgconfig/bantam.pc'

uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/bin/bantam' '$(DESTDIR)$(PREFIX)/include/bantam.h' \
	    '$(DESTDIR)$(LIBDIR)/pkgconfig/bantam.pc' '$(DESTDIR)$(LIBDIR)/libbantam.a' \
	    '$(DESTDIR)$(LIBDIR)/libbantam.so' '$(DESTDIR)$(LIBDIR)/$(SONAME)' \
	    '$(DESTDIR)$(LIBDIR)/libbantam.so.$(VERSION)'

# ---- Housekeeping ---------------------------------------------------------------------------

format:
	clang-format -i $(shell find include src tools cli tests examples -name '*.[ch]')

clean:
	rm -rf '$(BUILD)'
