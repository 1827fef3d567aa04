"""Tables of tokens taken out of an OpenVINO graph: their rows become inputs.

Embeddings are most of a small model. A compiled graph holds a copy of every constant, and one in a file is mapped into memory
page by page as it is read; so tables that stay outside are there once, and only the rows that texts were made of.
"""

from typing import Any

import numpy as np

LOOKUP = "Gather"
THROUGH = "Convert"  # ids are narrowed before they are looked up
IDS = "input_ids"


def take_out_tables(model: Any) -> dict[str, np.ndarray]:
    """Replace each lookup of a token's row by an input of rows, (B, T, D) in the table's type.

    Args:
        model: an `openvino.Model`, changed in place.

    Returns:
        The tables (V, D), views of the model's constants, by the names of the inputs; none where no token is looked up.
    """
    from openvino import opset13

    tables: dict[str, np.ndarray] = {}
    for lookup in model.get_ordered_ops():
        if lookup.get_type_name() != LOOKUP:
            continue
        table, ids = (lookup.input_value(place).get_node() for place in (0, 1))
        while ids.get_type_name() == THROUGH:
            ids = ids.input_value(0).get_node()
        if table.get_type_name() != "Constant" or ids.get_friendly_name() != IDS or len(table.shape) != 2:
            continue
        name = f"rows_{len(tables)}"
        rows = opset13.parameter([-1, -1, table.shape[1]], table.get_output_element_type(0), name=name)
        rows.output(0).set_names({name})
        for reader in lookup.output(0).get_target_inputs():
            reader.replace_source_output(rows.output(0))
        model.add_parameters([rows])
        tables[name] = table.data
    if tables:
        model.validate_nodes_and_infer_types()
    return tables
