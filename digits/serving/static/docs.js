// Starts Swagger UI on /docs; validatorUrl would send the description to somebody else's server.
"use strict";

// requests go to where this page lies, which a proxy may have put below a path
const root = new URL(".", location.href).pathname.replace(/\/$/, "");

fetch("openapi.json")
  .then((response) => response.json())
  .then((description) =>
    SwaggerUIBundle({
      spec: { ...description, servers: [{ url: root || "/" }] },
      dom_id: "#docs",
      deepLinking: true,
      validatorUrl: null,
      defaultModelsExpandDepth: 0,
    }),
  );
