// Tables of the class "sortable": a button in each head of a column sorts the lines by it, then the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const order = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
      const number = (a, b) => Number(value(a)) - Number(value(b));
      const rows = [...table.tBodies[0].rows];
      const filled = rows.filter((row) => value(row) !== "");
      const compare = filled.every((row) => !Number.isNaN(Number(value(row)))) ? number : order;
      filled.sort((a, b) => (direction === "ascending" ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...filled, ...rows.filter((row) => value(row) === "")); // what lacks a number comes last
    }),
  );
}
