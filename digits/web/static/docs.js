// Starts Swagger UI on /docs. Without validatorUrl: null it would send the description to another server.
"use strict";

// send requests to the path of this page, because a proxy may serve it below a prefix
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
