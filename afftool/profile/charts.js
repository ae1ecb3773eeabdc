// Stands in for Google Charts where it cannot be loaded: every chart of the plugin's pages becomes a table of its figures.
(function () {
  if (window.google && window.google.charts) return;
  const SHOWN = 200;

  class DataTable {
    constructor() { this.columns = []; this.rows = []; }
    addColumn(column, label) {
      this.columns.push(typeof column === "string" ? { type: column, label: label } : column);
    }
    addRow(row) { this.rows.push(row); }
    addRows(rows) { rows.forEach((row) => this.rows.push(row)); }
    setProperty() {}
    setCell() {}
    getNumberOfRows() { return this.rows.length; }
    getValue(row, column) { return this.rows[row][column]; }
  }

  function arrayToDataTable(rows) {
    const table = new DataTable();
    (rows[0] || []).forEach((label) => table.addColumn({ label: typeof label === "object" ? label.label : label }));
    table.addRows(rows.slice(1));
    return table;
  }

  function text(value) {
    if (value === null || value === undefined) return "";
    return String(value && value.v !== undefined ? value.v : value);
  }

  class Chart {
    constructor(element) { this.element = element; }
    draw(data, options) {
      const kept = data.columns.map((c, i) => i).filter((i) => data.columns[i].role !== "tooltip");
      const table = document.createElement("table");
      table.className = "afftool-chart";
      table.createCaption().textContent = (options && options.title) || "";
      const head = table.createTHead().insertRow();
      kept.forEach((i) => {
        const cell = document.createElement("th");
        cell.textContent = text(data.columns[i].label || data.columns[i].id);
        head.appendChild(cell);
      });
      const body = table.createTBody();
      data.rows.slice(0, SHOWN).forEach((row) => {
        const line = body.insertRow();
        kept.forEach((i) => { line.insertCell().textContent = text(row[i]); });
      });
      if (data.rows.length > SHOWN) body.insertRow().insertCell().textContent = data.rows.length - SHOWN + " more";
      this.element.style.overflow = "auto";
      this.element.replaceChildren(table);
    }
    clearChart() { this.element.replaceChildren(); }
    getSelection() { return []; }
    setSelection() {}
  }

  const charts = ["ColumnChart", "ComboChart", "LineChart", "PieChart", "SteppedAreaChart", "Table", "Timeline"];
  window.google = {
    charts: { load: () => Promise.resolve(), setOnLoadCallback: (ready) => ready() },
    visualization: {
      DataTable, arrayToDataTable, events: { addListener() {} },
      ...Object.fromEntries(charts.map((name) => [name, Chart])),
    },
  };
})();
