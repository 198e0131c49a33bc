"""Names that steer terminals, hide or turn text, and a model in which every name is one of them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

#: What a name may try, each with a word by which it is found again.
TRICKS = {
    "colour": "\x1b[31mcolour\x1b[0m", "clear": "\x1b[2Jclear", "link": "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07clipboard", "c1": "\x9b31mc1\x9d0;t\x9c", "return": "return\rover", "line": "line\nonnxfim: pass",
    "tab": "tab\tbell\x07", "turned": "turned\u202eevil\u202c\u2066", "nothing": "noth\u200bing\u2060\ufeff", "markup": "[bold red]markup[/]",
    "unclosed": "[/unclosed]", "separator": "separator\u2028\u2029",
}  # fmt: skip
ALL = " ".join(TRICKS.values())
#: Characters that no line of output may hold; line ends alone are ours.
FORBIDDEN = frozenset("\u200b\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff") | {
    chr(i) for i in (*range(32), *range(127, 160)) if chr(i) != "\n"
}


def hostile_model(K: int = 3, d: int = 4, *, extra: str = ""):
    """A linear classifier whose names, texts and metadata are hostile ones."""
    name = TRICKS["clipboard"] + TRICKS["turned"] + TRICKS["line"] + extra
    rng = np.random.default_rng(0)
    x, h, z, w, v = (f"{what}{name}" for what in ("x", "h", "z", "w", "v"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", [x, w], [h], name=f"node{ALL}", doc_string=ALL),
         helper.make_node("MatMul", [h, v], [z], name=f"head{ALL}")],
        f"graph{ALL}",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [f"N{name}", d])],
        [helper.make_tensor_value_info(z, TensorProto.FLOAT, [f"N{name}", K])],
        [numpy_helper.from_array(rng.standard_normal((d, d)).astype(np.float32), w),
         numpy_helper.from_array(rng.standard_normal((d, K)).astype(np.float32), v)],
        doc_string=ALL,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name=f"producer{ALL}", doc_string=ALL)
    made.producer_version, made.domain, made.ir_version = ALL, ALL, 8
    helper.set_model_props(made, {ALL: ALL})
    return made


def unknown_operator(d: int = 4):
    """A model with an operator and a domain of hostile names, which no runtime takes."""
    made = hostile_model(d=d)
    made.graph.node[0].op_type = f"Op{ALL}"
    made.graph.node[0].domain = f"domain{ALL}"
    made.opset_import.append(helper.make_opsetid(f"domain{ALL}", 1))
    return made
