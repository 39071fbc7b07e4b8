# Builds Bantam: `make` leaves the command at build/bantam and the library beside it. Everything
# goes below build/ (or BUILD=...); a changed compiler or changed flags rebuild.
#
#   make            command, libraries, bantam.pc      make test       all tests
#   make demo       train and try a network            make asan ubsan tsan   tests, instrumented
#   make examples   the programs of examples/          make bench      speed of this machine
#   make install    PREFIX=/usr/local DESTDIR=         make format     clang-format on all sources
#   make ahead      kernels/cuda/ahead.txt anew, when a plan of a whole-program kernel has changed

BUILD   ?= build
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
GEN      := $(BUILD)/gen
SANITIZE ?= # address,undefined ... for an instrumented build; also give BUILD
KC       := $(BUILD)/kc# the translator of kernels, which runs here whatever it is that is built

# macOS: Homebrew's folder, where clang does not look by itself, and what libraries are called. (Its make
# is GNU make 3.81: nothing newer is used here.)
MACOS := $(filter Darwin,$(shell uname -s))
BREW  := $(if $(MACOS),$(shell brew --prefix 2>/dev/null))
FOUND := $(BREW:%=-isystem %/include)

# What this machine has, written by the first rule below; make starts again when that has run. Goals
# that build nothing do without.
ifneq ($(filter-out clean format uninstall,$(or $(MAKECMDGOALS),all)),)
COMPILERS := found $(strip $(foreach tool,glslc nvcc clang++,$(shell command -v $(tool) 2>/dev/null)))
# (Made anew when one of them has come or gone.)
$(shell grep -qsxF 'COMPILERS_WERE := $(COMPILERS)' $(BUILD)/config.mk || rm -f $(BUILD)/config.mk)
include $(BUILD)/config.mk
endif

comma   := ,
VERSION := $(shell sed -n 's/^.define BT_VERSION_TEXT *"\(.*\)"/\1/p' include/bantam.h)
# A library's file and the names that lead to it: with its version, what programs look for, what ld does.
LIBRARY := $(if $(MACOS),libbantam.$(VERSION).dylib libbantam.0.dylib libbantam.dylib, \
             libbantam.so.$(VERSION) libbantam.so.0 libbantam.so)
SONAME  := $(word 2,$(LIBRARY))
SO      := $(lastword $(LIBRARY))

# One job per core; -jN on the command line wins.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
endif

# Instrumented code confuses gcc's flow analysis: there a warning is no error.
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            $(if $(strip $(SANITIZE)),-Wno-format-truncation -Wno-maybe-uninitialized,-Werror)
CFLAGS   ?= $(if $(strip $(SANITIZE)),-O1 -g,-O2 -g1)
FLAGS    := -std=c17 -D_GNU_SOURCE -Iinclude -Isrc -Icli -Itools -Ikernels -I$(GEN) $(CFLAGS) -ffp-contract=off -fPIC -fvisibility=hidden \
            $(WARNINGS) $(FOUND) $(CPPFLAGS)
LINK     := -pthread $(LDFLAGS)
LIBS     := $(BREW:%=-L%/lib) -lz -lpng -ljansson $(if $(MACOS),,-lmd) -lm -ldl -lpthread
LINK_SO  := $(if $(MACOS),-dynamiclib -Wl$(comma)-headerpad_max_install_names -install_name @rpath/$(SONAME),-shared -Wl$(comma)-soname$(comma)$(SONAME))
ifneq ($(strip $(SANITIZE)),)
FLAGS += -fsanitize=$(strip $(SANITIZE)) -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK  += -fsanitize=$(strip $(SANITIZE))
endif

# Sources named *_isa.c are compiled once per instruction set; the CPU's flags choose at run time.
ISA_FLAGS_base   := $(if $(filter -O2,$(CFLAGS)),-O3)
ISA_FLAGS_avx2   := $(ISA_FLAGS_base) -mavx2 -mfma
ISA_FLAGS_avx512 := $(ISA_FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl
ISAS := $(if $(filter x86_64% amd64%,$(shell $(CC) -dumpmachine)),avx512 avx2) base

ISA_SOURCES := $(wildcard src/device/cpu/*_isa.c)
KERNELS     := $(sort $(wildcard kernels/*.k))
KC_SOURCES  := $(filter-out tools/kc/main.c,$(wildcard tools/kc/*.c))
DEVICES     := cpu metal sim check $(if $(HAVE_VULKAN),vulkan) $(if $(HAVE_CUDA),cuda)
LIB_SOURCES := $(filter-out $(ISA_SOURCES),$(wildcard src/*/*.c $(DEVICES:%=src/device/%/*.c))) $(KC_SOURCES)
GENERATED   := kernels_tables sim_kernels metal_kernels metal_files $(if $(HAVE_VULKAN),spirv) $(if $(HAVE_CUDA),cuda_images)
# (The slow ones first, so that no core waits for them at the end.)
LIB_OBJECTS := $(foreach isa,$(ISAS),$(ISA_SOURCES:%.c=$(BUILD)/obj/%.$(isa).o)) \
               $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o) $(GENERATED:%=$(BUILD)/obj/gen/%.o)
FLAGS       += $(if $(HAVE_VULKAN),-DBT_HAVE_VULKAN) $(if $(HAVE_CUDA),-DBT_HAVE_CUDA) $(if $(HAVE_MICROHTTPD),-DBT_HAVE_MICROHTTPD)
CLI_LIBS    := $(if $(HAVE_MICROHTTPD),-lmicrohttpd)
CLI_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out cli/main.c,$(wildcard cli/*.c cli/*/*.c))) $(BUILD)/obj/gen/web_assets.o
WEB         := $(sort $(wildcard web/*))
EXAMPLES    := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))
# (tests/run.sh says why one is not there.)
NO_TESTS    := $(shell grep -l $(if $(HAVE_CUDA),,-e '"device/cuda/') $(if $(HAVE_VULKAN),,-e '"device/vulkan/') \
                 $(if $(MACOS),-e '"metal[a-z_]*[.]h"') -e 'no such line' tests/test_*.c)
# (Only those that were asked for, and what scripts among them run.)
ASKED       := $(ONLY) $(if $(filter test_languages,$(ONLY)),test_metal_simd) $(if $(filter test_neon,$(ONLY)),test_isa)
TESTS       := $(patsubst tests/%.c,$(BUILD)/tests/%,$(filter-out $(NO_TESTS),$(wildcard $(if $(ONLY),$(ASKED:%=tests/%.c),tests/test_*.c))))
TEST_LIBS   := $(if $(MACOS),,$(BUILD)/tests/metal_sim.so) $(if $(HAVE_CUDA),$(BUILD)/tests/fake_cuda.so)
TEST_HELP   := $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out tests/test_%,$(wildcard tests/*.c)))

.PHONY: all install uninstall examples test-programs test asan ubsan tsan ahead bench demo format clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(BUILD)/bantam $(BUILD)/libbantam.a $(BUILD)/$(SO) $(BUILD)/bantam.pc

# ---- Compiling ------------------------------------------------------------------------------

# Installs what the build needs where something is missing, once for each build folder, and then
# looks which optional parts can be built.
$(BUILD)/config.mk: scripts/install-deps.sh
	@mkdir -p $(@D)
	@CC="$(CC) $(FOUND)" sh scripts/install-deps.sh build
	@{ echo 'COMPILERS_WERE := $(COMPILERS)'; \
	if echo '#include <microhttpd.h>' | $(CC) $(FOUND) -E -x c - >/dev/null 2>&1; \
	then echo 'HAVE_MICROHTTPD := 1'; \
	else echo 'HAVE_MICROHTTPD :='; echo 'Without the live page: it needs $(if $(MACOS),libmicrohttpd,libmicrohttpd-dev)' >&2; fi; \
	[ -z '$(MACOS)' ] || exit 0; \
	if command -v glslc >/dev/null && echo '#include <vulkan/vulkan.h>' | $(CC) -E -x c - >/dev/null 2>&1; \
	then echo 'HAVE_VULKAN := 1'; \
	else echo 'HAVE_VULKAN :='; echo 'Without Vulkan: it needs glslc and libvulkan-dev' >&2; fi; \
	if command -v nvcc >/dev/null; then echo 'HAVE_CUDA := nvcc'; [ -e /dev/nvidiactl ] || \
	     echo 'Without an NVIDIA GPU: kernels tuned for one are compiled at run time, by NVRTC; TUNED=on compiles them now' >&2; \
	elif command -v clang++ >/dev/null; \
	then echo 'HAVE_CUDA := clang'; echo 'CUDA by clang: kernels tuned for a GPU need nvcc' >&2; \
	else echo 'HAVE_CUDA :='; echo 'Without CUDA: it needs nvcc or clang++' >&2; fi; } > $@
$(BUILD)/deps-test: scripts/install-deps.sh
	@mkdir -p $(@D)
	@CC="$(CC) $(FOUND)" sh scripts/install-deps.sh test && touch $@

# Changes only when the compiler or the flags do.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@{ $(CC) --version | head -n 1; echo '$(CC) $(FLAGS) $(ISA_FLAGS_avx512) $(LINK)'; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# (FLAGS_OF_FILE are those of one file.)
define compile
@mkdir -p $(@D)
@echo "  CC  $(@:$(BUILD)/%=%)"
@$(CC) $(FLAGS) $(FLAGS_OF_$<) $1 -MMD -MP -c -o $@ $<
endef

$(BUILD)/obj/tools/%.o: tools/%.c $(BUILD)/flags
	$(call compile)
# (Before the rule for all others: GNU make 3.81 takes the first that fits.)
$(BUILD)/obj/tests/%.o: tests/%.c $(BUILD)/flags | $(BUILD)/deps-test $(GEN)/kernels_gen.h
	$(call compile)
$(BUILD)/obj/%.o: %.c $(BUILD)/flags | $(GEN)/kernels_gen.h
	$(call compile)
$(BUILD)/obj/gen/%.o: $(GEN)/%.c $(BUILD)/flags
	$(call compile)

# What all *_isa.c include is compiled beforehand, once for each instruction set: reading the
# compiler's immintrin.h takes longer than many of them. (Not with clang, which refuses such a file
# as soon as a header has another date.)
BEFOREHAND := $(if $(shell $(CC) --version 2>/dev/null | grep -i clang),,on)
define for_isa
$(BUILD)/isa/$1/vec.h: $(BUILD)/flags
	@mkdir -p $$(@D)
	@echo '#include "device/cpu/vec_map.h"' > $$@
$(BUILD)/isa/$1/vec.h.gch: $(BUILD)/isa/$1/vec.h | $(GEN)/kernels_gen.h
	@$(CC) $(FLAGS) $(ISA_FLAGS_$1) -DBT_ISA=$1 -MMD -MP -x c-header -o $$@ $$<
$(BUILD)/obj/%.$1.o: %.c $(BUILD)/flags $(if $(BEFOREHAND),$(BUILD)/isa/$1/vec.h.gch) | $(GEN)/kernels_gen.h
	$$(call compile,$(ISA_FLAGS_$1) -DBT_ISA=$1 $(if $(BEFOREHAND),-include $(BUILD)/isa/$1/vec.h))
endef
$(foreach isa,$(ISAS),$(eval $(call for_isa,$(isa))))
FLAGS_OF_src/device/cpu/reference.c := $(ISA_FLAGS_base)
# (Products of bfloat16 are for processors that have still more; elsewhere the file is empty.)
FLAGS_OF_src/device/cpu/matmul_bf16.c := \
    $(if $(filter avx512,$(ISAS)),$(ISA_FLAGS_avx512) -mavx512bf16 -DBT_ISA=avx512)

-include $(shell find $(BUILD)/obj $(BUILD)/isa -name '*.d' 2>/dev/null)

# ---- Kernels --------------------------------------------------------------------------------

# The translator is built first; the rest of the library includes what it writes.
$(BUILD)/kc: $(KC_SOURCES:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/tools/kc/main.o
	@$(CC) $(LINK) -o $@ $^

$(GEN)/kernels_gen.h: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< header $(KERNELS) > $@
$(GEN)/kernels_tables.c: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< tables $(KERNELS) > $@
$(GEN)/sim_kernels.c: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< sim $(KERNELS) > $@
$(GEN)/metal_kernels.c: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< metal $(KERNELS) > $@
# Kernels for Metal alone: kernels/metal/matmul_simd.metal, below what kernel matmul has above itself.
METAL_TEXTS := $(patsubst kernels/metal/%,$(GEN)/metal/%,$(sort $(wildcard kernels/metal/*.metal)))
$(GEN)/metal/%.metal: kernels/metal/%.metal $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$(KC) msl $(firstword $(subst _, ,$*)) $(KERNELS) > $@.new
	@{ sed '/^\[\[max_total/,$$d' $@.new && echo '#line 1 "$<"' && cat $<; } > $@
	@rm $@.new
$(GEN)/metal_files.c: $(METAL_TEXTS) scripts/embed.sh $(BUILD)/sources
	@sh scripts/embed.sh device/metal/metal_internal.h bt_metal_file $(METAL_TEXTS) > $@
$(BUILD)/obj/gen/metal_files.o: $(METAL_TEXTS)
$(GEN)/spirv.c: $(KC) $(KERNELS)
	@mkdir -p $(@D)/spirv
	@echo "  SPIR-V"
	@$< list $(KERNELS) | xargs -P $$(nproc) -I{} sh -c '$< glsl {} $(KERNELS) > $(@D)/spirv/{}.comp && \
	    glslc -O --target-env=vulkan1.2 -o $(@D)/spirv/{}.spv $(@D)/spirv/{}.comp'
	@$< spirv $(@D)/spirv $(KERNELS) > $@

# CUDA: the portable kernels for any GPU (PTX, which the driver compiles) and, tuned, for Hopper
# (machine code): those, the kernels written by hand, and the whole-program kernels of the networks
# that kernels/cuda/ahead.txt names. Their sources go along: what is not compiled here, NVRTC compiles
# at run time. So is all that is tuned where no GPU is seen, as it takes as long as all else together.
TUNED      ?= $(if $(wildcard /dev/nvidiactl),on)
CUDA_TEXTS := $(sort $(wildcard kernels/cuda/*.cu kernels/cuda/*.cuh kernels/cuda/*.h kernels/cuda/*.txt))
CUDA_LARGE := $(basename $(notdir $(filter kernels/cuda/gemm%.cu kernels/cuda/conv%.cu,$(CUDA_TEXTS))))
CUDA_AHEAD := $(shell awk '!/^\#/ && NF == 2 { print $$1 }' kernels/cuda/ahead.txt 2>/dev/null)
# (Under a sanitizer nobody trains on a GPU.)
CUDA_CODE  := portable.ptx $(if $(filter nvcc/on/,$(HAVE_CUDA)/$(if $(strip $(TUNED)),on)/$(strip $(SANITIZE))), \
              $(patsubst %,%.cubin,portable $(CUDA_LARGE) $(CUDA_AHEAD:%=ahead_%)))
CUDA_CODE  := $(addprefix $(GEN)/cuda/,$(CUDA_CODE))
NVCC_FLAGS := -std=c++17 -O3 -Ikernels/cuda -I$(GEN)/cuda -diag-suppress 177

define nvcc # what to make, for which GPU
@mkdir -p $(@D)
@echo "  CUDA  $(@F)"
@nvcc $(NVCC_FLAGS) $1 -arch=$2 -MMD -MF $(@D)/$(@F).d -o $@ $<
endef

$(GEN)/cuda/portable.cu: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< portable $(KERNELS) > $@
ifeq ($(HAVE_CUDA),nvcc)
$(GEN)/cuda/portable.ptx: $(GEN)/cuda/portable.cu
	$(call nvcc,-ptx,compute_75)
# (Not from the PTX, which is for older GPUs too: it lacks griddepcontrol.wait.)
$(GEN)/cuda/portable.cubin: $(GEN)/cuda/portable.cu
	$(call nvcc,-cubin,sm_90)
else
$(GEN)/cuda/portable.ptx: $(GEN)/cuda/portable.cu tools/kc/ptx.h
	@echo "  CUDA  $(@F)"
	@clang++ -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-gpu-arch=sm_70 -std=c++17 -O3 \
	    -Wno-unknown-cuda-version -include tools/kc/ptx.h -S -o $@ $<
endif
# The text of a plan as src/device/cuda/whole.c makes it: defines, arguments, source.
$(GEN)/cuda/ahead_%.cu: kernels/cuda/ahead.txt
	@mkdir -p $(@D)
	@awk -v name='$*' '!/^#/ { on = NF == 2 && $$1 == name; if (on) source = $$2; next } \
	    on { print } END { printf "\n#include \"args.h\"\n#include \"%s\"\n", source }' $< > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(GEN)/cuda/ahead_%.cubin: $(GEN)/cuda/ahead_%.cu
	$(call nvcc,-cubin,sm_90a)
# The functions of math.k, for what products have in their epilogue.
$(GEN)/cuda/math.cuh: $(KC) $(KERNELS)
	@mkdir -p $(@D)
	@$< cuda matmul $(KERNELS) | sed '/^struct bt_matmul_args/,$$d' > $@
$(CUDA_LARGE:%=$(GEN)/cuda/%.cubin): $(GEN)/cuda/math.cuh
$(GEN)/cuda/%.cubin: kernels/cuda/%.cu
	$(call nvcc,-cubin,sm_90a)
CUDA_IMAGES := $(CUDA_CODE) $(GEN)/cuda/portable.cu $(GEN)/cuda/math.cuh $(CUDA_TEXTS)
$(GEN)/cuda_images.c: $(CUDA_IMAGES) scripts/embed.sh $(BUILD)/sources
	@sh scripts/embed.sh device/cuda/cuda_internal.h bt_cuda_image $(CUDA_IMAGES) > $@
$(BUILD)/obj/gen/cuda_images.o: $(CUDA_IMAGES)
-include $(wildcard $(GEN)/cuda/*.d)

# What the pages of `bantam report` and `bantam serve` need beside HTML.
$(GEN)/web_assets.c: $(WEB) scripts/embed.sh $(BUILD)/sources
	@mkdir -p $(@D)
	@sh scripts/embed.sh asset.h asset $(WEB) > $@
$(BUILD)/obj/gen/web_assets.o: $(WEB)

# ---- Linking --------------------------------------------------------------------------------

# The lists make a removed source file rebuild what contained it.
$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_OBJECTS) $(CLI_OBJECTS) $(WEB) $(CUDA_CODE) $(CUDA_TEXTS) $(METAL_TEXTS)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(BUILD)/libbantam.a: $(LIB_OBJECTS) $(BUILD)/sources
	@rm -f $@
	@ar rcs $@ $(LIB_OBJECTS)

$(BUILD)/$(SO): $(LIB_OBJECTS) $(BUILD)/sources
	@$(CC) $(LINK_SO) $(LINK) -o $@ $(LIB_OBJECTS) $(LIBS)
	@ln -sf $(SO) $(BUILD)/$(SONAME)

# The command but for its main, so that tests can call what is in it.
$(BUILD)/cli.a: $(CLI_OBJECTS) $(BUILD)/sources
	@rm -f $@
	@ar rcs $@ $(CLI_OBJECTS)

$(BUILD)/bantam: $(BUILD)/obj/cli/main.o $(BUILD)/cli.a $(BUILD)/libbantam.a
	@$(CC) $(LINK) -o $@ $^ $(CLI_LIBS) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_HELP) $(BUILD)/cli.a $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) $(LINK) -o $@ $^ -lcmocka $(CLI_LIBS) $(LIBS)

# The driver that test_cuda opens.
$(BUILD)/tests/fake_cuda.so: $(BUILD)/obj/tests/cuda/fake.o $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) -shared $(LINK) -o $@ $^ $(LIBS)

# The Metal that test_metal opens, with the folder of the headers that kernels are compiled under.
METAL_SIM := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tests/sim/metal/*.c))
# (ThreadSanitizer does not follow fibers from stack to stack.)
UNWATCHED := $(if $(findstring thread,$(SANITIZE)),-fno-sanitize=thread)
FLAGS_OF_src/device/sim/fiber.c := $(UNWATCHED)
$(foreach file,$(wildcard tests/sim/metal/*.c),$(eval FLAGS_OF_$(file) := $(UNWATCHED) -DMETAL_SIM_SHIM='"$(CURDIR)/tests/sim/metal/shim"'))
$(BUILD)/tests/metal_sim.so: $(METAL_SIM) $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) -shared -Wl,-z,nodelete $(LINK) -o $@ $^ $(LIBS)

$(BUILD)/examples/%: $(BUILD)/obj/examples/%.o $(BUILD)/libbantam.a
	@mkdir -p $(@D)
	@$(CC) $(LINK) -o $@ $^ $(LIBS)

$(BUILD)/bench/%: bench/%.c $(BUILD)/libbantam.a bench/peak.h bench/training.h
	@mkdir -p $(@D)
	@$(CC) $(FLAGS) $(ISA_FLAGS_base) $(LINK) -o $@ $< $(BUILD)/libbantam.a $(LIBS)

$(BUILD)/bantam.pc: Makefile include/bantam.h $(BUILD)/flags
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' \
	    'Name: bantam' 'Description: Trains small neural networks' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lbantam' \
	    'Libs.private: $(LIBS)' > $@

# ---- Running --------------------------------------------------------------------------------

examples: $(EXAMPLES)

test-programs: all $(TESTS) $(EXAMPLES) $(TEST_LIBS)

test: test-programs
	@BUILD='$(BUILD)' CC='$(CC)' SANITIZE='$(strip $(SANITIZE))' sh tests/run.sh $(ONLY)

asan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/asan SANITIZE=address,undefined
ubsan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/ubsan SANITIZE=undefined
tsan:
	@$(MAKE) --no-print-directory test BUILD=$(BUILD)/tsan SANITIZE=thread

# The plans of the presets, as test_cuda finds them (it needs NVRTC), for the next build.
ahead:
	@$(MAKE) --no-print-directory TUNED= $(BUILD)/bantam $(BUILD)/tests/test_cuda $(BUILD)/tests/fake_cuda.so
	@BUILD='$(BUILD)' $(BUILD)/tests/test_cuda
	@cp $(BUILD)/tests/fake_cuda.so.txt kernels/cuda/ahead.txt

bench: $(BUILD)/bantam
	@$(BUILD)/bantam bench mlp
	@$(BUILD)/bantam bench lenet

demo: $(BUILD)/bantam
	@BUILD='$(BUILD)' sh scripts/demo.sh

# ---- Installing -----------------------------------------------------------------------------

# The manual page and completions: file below share, and the command that prints it.
HELP_FILES := man/man1/bantam.1=man 'bash-completion/completions/bantam=completion bash' \
              'zsh/site-functions/_bantam=completion zsh' \
              'fish/vendor_completions.d/bantam.fish=completion fish'
SHARED     := man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d

install: all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(LIBDIR)/pkgconfig'
	install -m 755 $(BUILD)/bantam '$(DESTDIR)$(PREFIX)/bin/bantam'
	install -m 644 include/bantam.h '$(DESTDIR)$(PREFIX)/include/bantam.h'
	install -m 644 $(BUILD)/libbantam.a '$(DESTDIR)$(LIBDIR)/libbantam.a'
	install -m 755 $(BUILD)/$(SO) '$(DESTDIR)$(LIBDIR)/$(firstword $(LIBRARY))'
	$(if $(MACOS),install_name_tool -id '$(LIBDIR)/$(SONAME)' '$(DESTDIR)$(LIBDIR)/$(firstword $(LIBRARY))')
	ln -sf $(firstword $(LIBRARY)) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/$(SO)'
	sed -e 's|^prefix=.*|prefix=$(PREFIX)|' -e 's|^libdir=.*|libdir=$(LIBDIR)|' $(BUILD)/bantam.pc \
	    > '$(DESTDIR)$(LIBDIR)/pkgconfig/bantam.pc'
	install -d $(SHARED:%='$(DESTDIR)$(PREFIX)/share/%')
	for file in $(HELP_FILES); do $(BUILD)/bantam $${file#*=} > '$(DESTDIR)$(PREFIX)/share/'$${file%%=*} || exit 1; done

uninstall:
	for file in $(HELP_FILES); do rm -f '$(DESTDIR)$(PREFIX)/share/'$${file%%=*}; done
	rm -f '$(DESTDIR)$(PREFIX)/bin/bantam' '$(DESTDIR)$(PREFIX)/include/bantam.h' \
	    '$(DESTDIR)$(LIBDIR)/pkgconfig/bantam.pc' '$(DESTDIR)$(LIBDIR)/libbantam.a' \
	    $(LIBRARY:%='$(DESTDIR)$(LIBDIR)/%')

# ---- Housekeeping ---------------------------------------------------------------------------

format:
	clang-format -i $(shell find include src tools cli tests examples -name '*.[ch]')

clean:
	rm -rf '$(BUILD)'
