// document.registerElement as browsers had it until 2019 (Custom Elements v0), which the plugin's trace viewer is built on.
(function () {
  if (document.registerElement) return;
  const definitions = new Map();
  const upgraded = new WeakMap();
  const attached = new WeakSet();

  function definitionOf(element) {
    const given = element.getAttribute("is");
    const extended = given && definitions.get(given);
    if (extended && extended.tag === element.localName) return extended;
    const own = definitions.get(element.localName);
    return own && own.tag === element.localName ? own : undefined;
  }

  function upgrade(element) {
    const definition = !upgraded.has(element) && definitionOf(element);
    if (!definition) return;
    upgraded.set(element, definition);
    Object.setPrototypeOf(element, definition.prototype);
    if (element.createdCallback) element.createdCallback();
  }

  function connect(element) {
    if (!upgraded.has(element) || attached.has(element) || !element.isConnected) return;
    attached.add(element);
    if (element.attachedCallback) element.attachedCallback();
  }

  function disconnect(element) {
    if (!attached.has(element) || element.isConnected) return;
    attached.delete(element);
    if (element.detachedCallback) element.detachedCallback();
  }

  function each(root, visit) {
    if (root.nodeType === Node.ELEMENT_NODE) visit(root);
    if (root.querySelectorAll) root.querySelectorAll("*").forEach(visit);
  }

  function upgradeTree(root) {
    each(root, upgrade);
    each(root, connect);
    return root;
  }

  function react(records) {
    for (const record of records) {
      record.addedNodes.forEach(upgradeTree);
      record.removedNodes.forEach((node) => each(node, disconnect));
    }
  }

  const observer = new MutationObserver(react);
  observer.observe(document, { childList: true, subtree: true });

  const { createElement, importNode } = document;
  const { cloneNode } = Node.prototype;
  document.createElement = function (tag, extension) {
    const element = createElement.call(document, tag);
    if (typeof extension === "string") element.setAttribute("is", extension);
    upgrade(element);
    return element;
  };
  document.importNode = (node, deep) => upgradeTree(importNode.call(document, node, deep));
  Node.prototype.cloneNode = function (deep) {
    const copy = cloneNode.call(this, deep);
    return copy.ownerDocument === document ? upgradeTree(copy) : copy;
  };

  function tellAttributes(prototype) {
    for (const method of ["setAttribute", "removeAttribute"]) {
      const plain = prototype[method];
      prototype[method] = function (name, ...value) {
        const before = this.getAttribute(name);
        plain.call(this, name, ...value);
        const after = this.getAttribute(name);
        if (before !== after && this.attributeChangedCallback) this.attributeChangedCallback(name, before, after);
      };
    }
  }

  Element.prototype.createShadowRoot = function () {
    try {
      return this.attachShadow({ mode: "open" });
    } catch (refused) {  // today's shadow roots are for few tags only
      return this.appendChild(createElement.call(document, "div"));
    }
  };

  document.registerElement = function (name, options) {
    const prototype = (options && options.prototype) || Object.create(HTMLElement.prototype);
    const tag = (options && options.extends) || name;
    definitions.set(name, { prototype, tag });
    tellAttributes(prototype);
    upgradeTree(document);
    const construct = function () { return document.createElement(tag, tag === name ? undefined : name); };
    construct.prototype = prototype;
    prototype.constructor = construct;
    return construct;
  };
  window.wrap = window.unwrap = (node) => node;  // the polyfilled shadow DOM handed out wrapped nodes
  // What the import's polyfill told a script about where it stands; its page is the document now.
  Object.defineProperty(document, "_currentScript", { get: () => document.currentScript || { ownerDocument: document } });
  window.CustomElements = {
    useNative: false,
    ready: true,
    takeRecords: () => react(observer.takeRecords()),
    upgrade: upgradeTree,
    upgradeAll: upgradeTree,
    upgradeDocumentTree: upgradeTree,
    instanceof: (object, type) => object instanceof type,
  };
})();
