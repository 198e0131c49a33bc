"""Well-known networks with random weights as ONNX graphs, in the manner of different exporters; node names say nothing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """Builds a graph value by value; ``manner`` is dynamo, torchscript, tf, or ort (after ONNX Runtime's offline optimisation)."""

    def __init__(self, manner: str = "dynamo", *, folded: bool = False, seed: int = 0, weights: bool = True) -> None:
        self.manner, self.folded, self.weights = manner, folded, weights
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        out = self.name()
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name="", domain=domain, **attributes))
        return out

    def const(self, value) -> str:
        out = self.name()
        array = np.asarray(value)
        self.constants.append(numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, out))
        return out

    def weight(self, *shape: int) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.const(self.rng.standard_normal(shape) / np.sqrt(fan))

    def conv(self, x: str, i: int, o: int, k: int = 3, s: int = 1, g: int = 1, *, bn: bool = True, act: str | None = "Relu") -> str:
        attributes = {
            "strides": [s, s],
            "pads": [k // 2] * 4 if s < k or k == 1 else [0] * 4,
            "group": g,
            "kernel_shape": [k, k],
        }
        inputs = [x, self.weight(o, i // g, k, k)] + ([self.const(np.zeros(o))] if self.folded or not bn else [])
        if self.manner == "ort" and act == "Relu" and (self.folded or not bn):
            return self.op("FusedConv", *inputs, domain="com.microsoft", activation="Relu", **attributes)
        y = self.op("Conv", *inputs, **attributes)
        if bn and not self.folded:
            y = self.bn(y, o)
        return self.act(y, act)

    def bn(self, x: str, c: int) -> str:
        parts = [
            self.rng.uniform(0.5, 1.5, c),
            self.rng.standard_normal(c),
            self.rng.standard_normal(c),
            self.rng.uniform(0.5, 2, c),
        ]
        return self.op("BatchNormalization", x, *map(self.const, parts))

    def act(self, x: str, kind: str | None) -> str:
        if kind is None:
            return x
        if kind == "SiLU":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "Relu6":
            return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))
        if kind == "Gelu" and self.manner == "ort":
            return self.op("Gelu", x, domain="com.microsoft")
        if kind == "Gelu":
            e = self.op("Erf", self.op("Div", x, self.const(np.float32(np.sqrt(2)))))
            return self.op("Mul", self.op("Mul", x, self.op("Add", e, self.const(np.float32(1)))), self.const(np.float32(0.5)))
        return self.op(kind, x)

    def dense(self, x: str, i: int, o: int) -> str:
        if self.manner == "tf" or self.manner == "tokens":
            return self.op("Add", self.op("MatMul", x, self.weight(i, o)), self.const(np.zeros(o)))
        return self.op("Gemm", x, self.weight(o, i), self.const(np.zeros(o)), transB=1)

    def linear(self, x: str, i: int, o: int) -> str:
        """A dense layer on tokens."""
        return self.op("Add", self.op("MatMul", x, self.weight(i, o)), self.const(np.zeros(o)))

    def add(self, a: str, b: str) -> str:
        return self.op("Add", a, b)

    def head(self, x: str, c: int, classes: int = 10) -> str:
        if self.manner == "tf":
            x = self.op("ReduceMean", x, axes=[2, 3], keepdims=0)
            return self.op("Softmax", self.dense(x, c, classes), axis=-1)
        x = self.op("GlobalAveragePool", x)
        if self.manner == "torchscript":  # a reshape by a computed shape
            n = self.op(
                "Unsqueeze", self.op("Gather", self.op("Shape", x), self.const(np.int64(0)), axis=0), self.const(np.array([0]))
            )
            x = self.op("Reshape", x, self.op("Concat", n, self.const(np.array([-1])), axis=0))
        else:
            x = self.op("Flatten", x, axis=1)
        return self.dense(x, c, classes)

    def norm(self, x: str, d: int, epsilon: float = 1e-6) -> str:
        g, b = self.const(self.rng.uniform(0.5, 1.5, d)), self.const(0.1 * self.rng.standard_normal(d))
        if self.manner != "torchscript":
            return self.op("LayerNormalization", x, g, b, axis=-1, epsilon=epsilon)
        c = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        v = self.op("ReduceMean", self.op("Pow", c, self.const(np.float32(2))), axes=[-1])
        n = self.op("Div", c, self.op("Sqrt", self.op("Add", v, self.const(np.float32(epsilon)))))
        return self.op("Add", self.op("Mul", n, g), b)

    def attention(self, x: str, d: int, heads: int, n: int, *, batch: int = 0) -> str:
        if self.manner == "ort":
            y = self.op("Attention", x, self.weight(d, 3 * d), self.const(np.zeros(3 * d)), domain="com.microsoft", num_heads=heads)
            return self.linear(y, d, d)
        split = self.const(np.array([batch, n, heads, d // heads]))
        q, k, v = (
            self.op("Transpose", self.op("Reshape", self.linear(x, d, d), split), perm=p)
            for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Mul", self.op("MatMul", q, k), self.const(np.float32(1 / np.sqrt(d // heads))))
        y = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        y = self.op("Reshape", self.op("Transpose", y, perm=[0, 2, 1, 3]), self.const(np.array([batch, n, d])))
        return self.linear(y, d, d)

    def block(self, x: str, d: int, heads: int, n: int) -> str:
        x = self.add(x, self.attention(self.norm(x, d), d, heads, n))
        h = self.linear(self.act(self.linear(self.norm(x, d), d, 2 * d), "Gelu"), 2 * d, d)
        return self.add(x, h)

    def model(self, y: str, shape: tuple[int, ...], *, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
        for node in self.nodes:
            node.output[:] = ["y" if o == y else o for o in node.output]
        graph = helper.make_graph(
            self.nodes, "net", [helper.make_tensor_value_info("x", dtype, ("N", *shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], self.constants,
        )  # fmt: skip
        return helper.make_model(
            graph,
            opset_imports=[helper.make_operatorsetid("", 17), helper.make_operatorsetid("com.microsoft", 1)],
            ir_version=8,
        )


def mlp(net: Net):
    x = net.op("Flatten", "x")
    for i, o in ((48, 32), (32, 32)):
        x = net.op("Relu", net.dense(x, i, o))
    return net.model(net.dense(x, 32, 10), (3, 4, 4))


def vgg(net: Net, plan=(8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M")):
    x, c = "x", 3
    for width in plan:
        if width == "M":
            x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        else:
            x, c = net.conv(x, c, width), width
    return net.model(net.head(x, c), (3, 32, 32))


def vgg16(net: Net):
    return vgg(net, (4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"))


def resnet(net: Net, blocks=(2, 2, 2, 2), *, width=8, bottleneck=False, size=32, stem=3):
    expand = 4 if bottleneck else 1
    x = net.conv("x", 3, width, stem, 2)
    x, c = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), width
    for stage, count in enumerate(blocks):
        o = width * 2**stage
        for b in range(count):
            s = 2 if b == 0 and stage else 1
            skip = x if s == 1 and c == o * expand else net.conv(x, c, o * expand, 1, s, act=None)
            if bottleneck:
                h = net.conv(net.conv(net.conv(x, c, o, 1), o, o, 3, s), o, o * expand, 1, act=None)
            else:
                h = net.conv(net.conv(x, c, o, 3, s), o, o, 3, act=None)
            x, c = net.op("Relu", net.add(h, skip)), o * expand
    return net.model(net.head(x, c), (3, size, size))


def resnet50(net: Net):
    return resnet(net, (3, 4, 6, 3), width=4, bottleneck=True)


def densenet(net: Net, blocks=(6, 12, 24, 16), *, growth=4):
    x, c = net.conv("x", 3, 8, 3, 1), 8
    for stage, count in enumerate(blocks):
        features, widths = [x], [c]
        for _ in range(count):
            joined = features[0] if len(features) == 1 else net.op("Concat", *features, axis=1)
            h = net.op("Relu", net.bn(joined, sum(widths)))
            h = net.conv(h, sum(widths), 2 * growth, 1)
            features.append(net.conv(h, 2 * growth, growth, 3, bn=False, act=None))
            widths.append(growth)
        x, c = net.op("Concat", *features, axis=1), sum(widths)
        if stage < len(blocks) - 1:
            x = net.conv(net.op("Relu", net.bn(x, c)), c, c // 2, 1, bn=False, act=None)
            x, c = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), c // 2
    return net.model(net.head(net.op("Relu", net.bn(x, c)), c), (3, 16, 16))


def vit(net: Net, depth=12, d=24, heads=3):
    x = net.conv("x", 3, d, 8, 8, bn=False, act=None)
    x = net.op("Transpose", net.op("Reshape", x, net.const(np.array([0, d, 16]))), perm=[0, 2, 1])
    token = net.op(
        "Expand",
        net.const(np.zeros((1, 1, d))),
        net.op(
            "Concat",
            net.op("Slice", net.op("Shape", x), net.const(np.array([0])), net.const(np.array([1]))),
            net.const(np.array([1, d])),
            axis=0,
        ),
    )
    x = net.op("Add", net.op("Concat", token, x, axis=1), net.weight(1, 17, d))
    for _ in range(depth):
        x = net.block(x, d, heads, 17)
    x = net.op("Gather", net.norm(x, d), net.const(np.int64(0)), axis=1)
    return net.model(net.linear(x, d, 10), (3, 32, 32))


def mobilenet_v2(net: Net):
    x, c = net.conv("x", 3, 8, 3, 2, act="Relu6"), 8
    for o, s in ((8, 1), (8, 1), (12, 2), (12, 1), (16, 2), (16, 1)):
        h = net.conv(net.conv(x, c, 3 * c, 1, act="Relu6"), 3 * c, 3 * c, 3, s, 3 * c, act="Relu6")
        h = net.conv(h, 3 * c, o, 1, act=None)
        x, c = (net.add(x, h) if s == 1 and c == o else h), o
    return net.model(net.head(x, c), (3, 32, 32))


def efficientnet(net: Net):
    x, c = net.conv("x", 3, 8, 3, 2, act="SiLU"), 8
    for o, s in ((8, 1), (8, 1), (12, 2), (12, 1)):
        h = net.conv(net.conv(x, c, 3 * c, 1, act="SiLU"), 3 * c, 3 * c, 3, s, 3 * c, act="SiLU")
        g = net.op("GlobalAveragePool", h) if net.manner != "tf" else net.op("ReduceMean", h, axes=[2, 3])
        g = net.op("Sigmoid", net.conv(net.conv(g, 3 * c, 4, 1, bn=False, act="SiLU"), 4, 3 * c, 1, bn=False, act=None))
        h = net.conv(net.op("Mul", g, h), 3 * c, o, 1, act=None)
        x, c = (net.add(h, x) if s == 1 and c == o else h), o
    return net.model(net.head(x, c), (3, 32, 32))


def _roll(net: Net, x: str, shift: int) -> str:
    for axis in (1, 2):
        a = net.op("Slice", x, *(net.const(np.array([v])) for v in (shift, 10**9, axis)))
        b = net.op("Slice", x, *(net.const(np.array([v])) for v in (0, shift, axis)))
        x = net.op("Concat", a, b, axis=axis)
    return x


def swin(net: Net, d=12, heads=3):
    x = net.op("Transpose", net.conv("x", 3, d, 4, 4, bn=False, act=None), perm=[0, 2, 3, 1])  # (N, 8, 8, d)
    for k in range(4):
        h = net.norm(x, d)
        h = _roll(net, h, 2) if k % 2 else h
        h = net.op("Transpose", net.op("Reshape", h, net.const(np.array([-1, 2, 4, 2, 4, d]))), perm=[0, 1, 3, 2, 4, 5])
        h = net.attention(net.op("Reshape", h, net.const(np.array([-1, 16, d]))), d, heads, 16, batch=-1)
        h = net.op("Transpose", net.op("Reshape", h, net.const(np.array([-1, 2, 2, 4, 4, d]))), perm=[0, 1, 3, 2, 4, 5])
        h = net.op("Reshape", h, net.const(np.array([-1, 8, 8, d])))
        x = net.add(x, _roll(net, h, 6) if k % 2 else h)
        x = net.add(x, net.linear(net.act(net.linear(net.norm(x, d), d, 2 * d), "Gelu"), 2 * d, d))
    x = net.op("ReduceMean", net.norm(x, d), axes=[1, 2], keepdims=0)
    return net.model(net.linear(x, d, 10), (3, 32, 32))


def convnext(net: Net, d=12):
    x = net.conv("x", 3, d, 4, 4, bn=False, act=None)
    for _ in range(4):
        h = net.norm(net.op("Transpose", net.conv(x, d, d, 7, 1, d, bn=False, act=None), perm=[0, 2, 3, 1]), d)
        h = net.linear(net.act(net.linear(h, d, 4 * d), "Gelu"), 4 * d, d)
        x = net.add(net.op("Transpose", net.op("Mul", h, net.const(1e-2 * np.ones(d))), perm=[0, 3, 1, 2]), x)
    return net.model(net.head(x, d), (3, 32, 32))


def bert(net: Net, d=24, heads=3):
    x = net.op("Gather", net.weight(50, d), "x")
    x = net.norm(net.op("Add", x, net.weight(1, 8, d)), d, 1e-12)
    for _ in range(3):
        x = net.norm(net.add(net.attention(x, d, heads, 8), x), d, 1e-12)
        x = net.norm(net.add(net.linear(net.act(net.linear(x, d, 2 * d), "Gelu"), 2 * d, d), x), d, 1e-12)
    x = net.op("Tanh", net.dense(net.op("Gather", x, net.const(np.int64(0)), axis=1), d, d))
    return net.model(net.dense(x, d, 2), (8,), dtype=TensorProto.INT64)


FAMILIES = {
    mlp: "mlp", vgg: "vgg", vgg16: "vgg", resnet: "resnet", resnet50: "resnet", densenet: "densenet", vit: "transformer", mobilenet_v2: "resnet",
    efficientnet: "hybrid", swin: "transformer", convnext: "resnet", bert: "transformer",
}  # fmt: skip
