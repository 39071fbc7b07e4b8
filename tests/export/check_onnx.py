"""onnx.checker on FOLDER/model.onnx of each argument, with strict shape inference; opset, names and shapes are those
that docs/formats.md promises."""
import sys

import onnx


def shape(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def check(folder):
    channels, height, width, classes = map(int, open(f"{folder}/shape").read().split())
    model = onnx.load(f"{folder}/model.onnx")
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert model.ir_version == 8 and [(o.domain, o.version) for o in model.opset_import] == [("", 13)]
    assert [(i.name, shape(i)) for i in model.graph.input] == [("images", ["N", channels, height, width])]
    assert [(o.name, shape(o)) for o in model.graph.output] == [("logits", ["N", classes])]
    outputs = {name for node in model.graph.node for name in node.output}
    known = {value.name for value in inferred.graph.value_info} | {"logits"}
    assert outputs <= known, f"no shape is inferred for {outputs - known}"
    print(f"# {folder.split('/')[-1]}:", " ".join(node.op_type for node in model.graph.node))


for folder in sys.argv[1:]:
    check(folder)
